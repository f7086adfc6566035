"""`headrace train`: learn everything again from the log, as the rival of learning as it comes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import DATA_DIR, DataDir, Json, told
from headrace.runtime.errors import InvalidRequestError

if TYPE_CHECKING:
    from headrace.runtime.settings import CommonSettings
    from headrace.trainer.retrain import Progress, RetrainReport


@told
def train(
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Required: the suite's trainer does the incremental learning.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the result; DATA_DIR/retrained when left out.", show_default=False)
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often the whole log is gone through.")] = 5,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Train on the whole event log from nothing: the rival of learning as it comes.

    Reads the suite's event log and changes nothing there; a running suite goes on undisturbed.

    \b
    Examples:
      headrace train --from-scratch
      torchrun --nproc-per-node 4 --no-python headrace train --from-scratch
    """
    if not from_scratch:
        raise InvalidRequestError.of("train", "say --from-scratch; learning as it comes is `headrace up`")
    from headrace.runtime.eventlog.opening import require_event_log
    from headrace.runtime.settings import CommonSettings, load

    common = load(CommonSettings).model_copy(update={"data_dir": data_dir})
    require_event_log(common)
    report = _retrained(common, out or data_dir / "retrained", epochs, quiet=as_json)
    if report is not None:
        _print(report, as_json)


def _retrained(common: CommonSettings, out_dir: Path, epochs: int, quiet: bool) -> RetrainReport | None:
    """None in processes of torchrun that only help the first."""
    from headrace.runtime.threads import limit_threads

    limit_threads()
    from headrace.runtime.settings import load
    from headrace.trainer.distributed import joined
    from headrace.trainer.retrain import retrain
    from headrace.trainer.settings import TrainerSettings

    settings, peers = load(TrainerSettings), joined(os.environ)
    is_first = peers.rank == 0

    def tell(progress: Progress) -> None:
        if is_first and not quiet:
            told_so_far = f"epoch {progress.epoch} of {progress.epochs}: loss {progress.loss:.4f}"
            typer.echo(f"{told_so_far}, {progress.seconds:.0f} s", err=True)

    report = retrain(common, out_dir, settings, epochs=epochs, on_progress=tell, peers=peers)
    return report if is_first else None


def _print(report: RetrainReport, as_json: bool) -> None:
    from headrace.cli.output import print_facts, print_json

    facts: dict[str, Any] = dataclasses.asdict(report)
    if as_json:
        print_json(facts)
    else:
        print_facts({name.replace("_", " "): value for name, value in facts.items()})
