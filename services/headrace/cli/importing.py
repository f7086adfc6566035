"""`headrace import` and `headrace mapping`: anybody's files, by a mapping file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told
from headrace.runtime.errors import InvalidRequestError

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.cli.import_run import Imported, ImportRun
    from headrace.datasets.importing.mapping import MappingFile

imports = typer.Typer(
    no_args_is_help=True,
    help="Send Parquet, CSV or JSON-lines files, by a mapping file.",
    rich_markup_mode="rich",
)

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="Parquet, .csv, .tsv, .jsonl, texts also .gz.")]
MappingPath = Annotated[
    Path, typer.Option("--mapping", help="Which column is which field; `headrace mapping FILE` drafts one.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Map everything, show two, send nothing.")]
RejectsPath = Annotated[
    Path | None,
    typer.Option("--rejects", help="Rows not taken, as JSON lines; FILE.rejects.jsonl here.", show_default=False),
]
FromRow = Annotated[int, typer.Option(min=1, help="Go on at this row of the first file.")]
InFlight = Annotated[int, typer.Option(min=1, max=32, help="Batches of 500 under way at once.")]


@imports.command()
@told
def events(
    files: Files,
    mapping: MappingPath,
    speed: Annotated[
        str, typer.Option(help="max, or how many times faster than real time: 3600 is an hour a second.")
    ] = "max",
    dry_run: DryRun = False,
    rejects: RejectsPath = None,
    from_row: FromRow = 1,
    in_flight: InFlight = 4,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Send a file's rows as events. Sending them again, or after a stop, adds nothing.

    Exit 0: all taken, 1: some rows or events were not, 2: the mapping or the file is wrong.

    \b
    Examples:
      headrace import events orders.parquet --mapping orders.toml --dry-run
      headrace import events clicks-*.csv.gz --mapping clicks.toml
    """
    _import("events", files, mapping, speed, dry_run, rejects, from_row, in_flight, data_dir, address, as_json)


@imports.command()
@told
def products(
    files: Files,
    mapping: MappingPath,
    dry_run: DryRun = False,
    rejects: RejectsPath = None,
    from_row: FromRow = 1,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Send a file's rows as products. Those that are unchanged add nothing.

    Exit 0: all taken, 1: some rows were not, 2: the mapping or the file is wrong.

    \b
    Examples:
      headrace import products items.parquet --mapping items.toml
      headrace import products items.csv --mapping items.toml --dry-run --json
    """
    _import("products", files, mapping, "max", dry_run, rejects, from_row, 1, data_dir, address, as_json)


@imports.command()
@told
def facts(
    files: Files,
    mapping: MappingPath,
    dry_run: DryRun = False,
    rejects: RejectsPath = None,
    from_row: FromRow = 1,
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Send a file's rows as dated facts: promotions, coupons, parts in campaigns.

    Exit 0: all taken, 1: some rows were not, 2: the mapping or the file is wrong.

    \b
    Examples:
      headrace import facts promotions.parquet --mapping display.toml
      headrace import facts coupons.parquet --mapping coupons.toml --dry-run
    """
    _import("facts", files, mapping, "max", dry_run, rejects, from_row, 1, data_dir, address, as_json)


@told
def mapping(
    file: Annotated[Path | None, typer.Argument(help="Whose columns to draft from; none: an example.")] = None,
    kind: Annotated[str, typer.Option("--for", help="events, products or facts.")] = "events",
    as_json: Json = False,
) -> None:
    """Print a mapping file: an example with every option, or a draft from a file's columns.

    \b
    Examples:
      headrace mapping
      headrace mapping orders.parquet --for events > orders.toml
    """
    from headrace.cli.output import print_json
    from headrace.datasets.importing.drafting import draft, example
    from headrace.datasets.importing.targets import KINDS

    if kind not in KINDS:
        raise InvalidRequestError.of("--for", f"must be {', '.join(KINDS)}, got {kind!r}")
    text = example(kind) if file is None else draft(file, kind)
    if as_json:
        print_json({"kind": kind, "mapping": text})
    else:
        typer.echo(text, nl=False)


def _import(
    kind: str,
    files: list[Path],
    mapping_path: Path,
    speed: str,
    dry_run: bool,
    rejects_path: Path | None,
    from_row: int,
    in_flight: int,
    data_dir: Path,
    address: list[str],
    as_json: bool,
) -> None:
    from headrace.cli.conversation import ask
    from headrace.cli.import_run import ImportRun, Rejects
    from headrace.cli.replay import speed_factor
    from headrace.cli.sending import Sender

    rules, factor = _rules(mapping_path, kind), speed_factor(speed)
    if from_row > 1 and len(files) > 1:
        raise InvalidRequestError.of("--from-row", f"is of one file, got {len(files)}")
    begun = time.monotonic()
    rejected = Rejects(rejects_path or Path(f"{files[0].name}.rejects.jsonl"), goes_on=from_row > 1)
    with rejected, _Bar(as_json, len(files)) as bar:
        run = ImportRun(rules, rejected, from_row, bar.show)

        async def conversation(client: Client) -> None:
            async with Sender(client.ingest, in_flight) as sender:
                await run.send(files, sender, factor)

        if dry_run:
            run.check(files)
        else:
            _or_say_where_to_go_on(lambda: ask(data_dir, address, conversation), run)
    _print(_summary(kind, files, run.imported, rejected.path if rejected.is_there else None, dry_run, begun), as_json)
    if run.imported.rejected_rows or run.imported.refused:
        raise typer.Exit(1)


def _rules(path: Path, kind: str) -> MappingFile:
    from headrace.datasets.importing.mapping import load_mapping

    rules = load_mapping(path)
    if rules.kind != kind:
        raise InvalidRequestError.of(
            f"{path}: kind", f"must be {kind!r} for `headrace import {kind}`, got {rules.kind!r}"
        )
    return rules


def _or_say_where_to_go_on(work: Any, run: ImportRun) -> None:
    try:
        work()
    except BaseException:
        if run.done_before > 1:
            said = f"rows of {run.file} before {run.done_before} are in; --from-row {run.done_before} goes on there"
            typer.echo(f"headrace: {said}", err=True)
        raise


class _Bar:
    """How much of the files was read, with the rate of rows and the time left."""

    def __init__(self, quiet: bool, files: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._files = files
        self._done = 0
        self._last = 0.0
        self._begun = time.monotonic()
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[rows]:,} rows  {task.fields[rate]:,.0f}/s  left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )
        self._task = self._bar.add_task("", total=files, rows=0, rate=0.0)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, share: float, rows: int) -> None:
        self._done += share < self._last
        self._last = share
        rate = rows / max(time.monotonic() - self._begun, 1e-9)
        self._bar.update(self._task, completed=self._done + share, rows=rows, rate=rate)


def _summary(
    kind: str, files: list[Path], imported: Imported, rejects: Path | None, dry_run: bool, begun: float
) -> dict[str, Any]:
    seconds = time.monotonic() - begun
    summary: dict[str, Any] = {
        "kind": kind,
        "files": [str(file) for file in files],
        "rows": imported.rows,
        "rows_skipped": imported.skipped,
        "rows_rejected": imported.rejected_rows,
        "rejects": str(rejects) if rejects else None,
        "passed_over": imported.passed_over,
        "accepted": imported.accepted,
        "duplicates": imported.duplicates,
        "refused": dict(imported.refused),
        "seconds": round(seconds, 3),
        "rows_per_second": round(imported.rows / max(seconds, 1e-9), 1),
    }
    if dry_run:
        for name in ("accepted", "duplicates", "refused"):
            del summary[name]
        summary["examples"] = imported.examples
    return summary


def _print(summary: dict[str, Any], as_json: bool) -> None:
    from headrace.cli.output import print_facts, print_json

    if as_json:
        print_json(summary)
        return
    shown = {name.replace("_", " "): value for name, value in summary.items() if name != "examples"}
    shown["files"] = ", ".join(summary["files"])
    shown["rejects"] = summary["rejects"] or "none"
    if "refused" in summary:
        shown["refused"] = ", ".join(f"{reason} {count:,}" for reason, count in summary["refused"].items()) or 0
    print_facts(shown)
    for example in summary.get("examples", ()):
        print_json(example)
