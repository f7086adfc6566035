"""`headrace up`: the whole suite on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.suite import Change, Suite


@told
def up(
    data_dir: DataDir = DATA_DIR,
    port_base: Annotated[
        int | None,
        typer.Option(
            min=1, max=65530, help="First of five ports, or seven; free ones when left out.", show_default=False
        ),
    ] = None,
    only: Annotated[
        list[str], typer.Option("--only", help="Start this service only. May be repeated.", show_default=False)
    ] = [],  # noqa: B006  # typer reads it, nobody changes it
    candidate: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE",
            help="Try a trainer setting: a second learner and a canary ranker beside. May be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006  # typer reads it, nobody changes it
    restart: Annotated[bool, typer.Option(help="Start a service again when it dies.")] = True,
    as_json: Json = False,
) -> None:
    """Run the five services here, with nothing else installed, until Ctrl-C.

    Data, logs and suite.json (where the other commands look) go to the data
    directory. A later `up` on it goes on where the last one ended.

    With --candidate a second learner of the lineage "candidate" learns the same
    log with these trainer settings, and a second ranker waits as canary track.
    Nobody is answered by them until a rollout begins.

    \b
    Examples:
      headrace up
      headrace up --data-dir /tmp/shop --port-base 7401
      headrace up --only ingest --only feature-store
      headrace up --candidate blocks=2     # then: headrace rollout start --lineage candidate
    """
    from headrace.cli.members import candidate_of

    _check_environment()
    differs = candidate_of(candidate) if candidate else None
    asyncio.run(_run(data_dir, tuple(only), differs, port_base, restart, as_json))


def _check_environment() -> None:
    """SettingsError: every service would end with it at once, and be started again and again."""
    from headrace.runtime.eventlog.opening import open_event_log
    from headrace.runtime.settings import CommonSettings, load

    if (common := load(CommonSettings)).event_log_url:
        # nothing is connected to yet
        open_event_log(common)


async def _run(
    data_dir: Path,
    only: tuple[str, ...],
    candidate: dict[str, str] | None,
    port_base: int | None,
    restart: bool,
    as_json: bool,
) -> None:
    from headrace.cli.suite import SERVICES, Suite

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    suite = Suite(
        data_dir,
        services=only or SERVICES,
        candidate=candidate,
        port_base=port_base,
        restart=restart,
        on_change=_json_line if as_json else _line,
    )
    # also a suite that is still starting can be stopped
    serving, asked = asyncio.create_task(_serve(suite, as_json)), asyncio.create_task(stop.wait())
    await asyncio.wait((serving, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not serving.done():
        serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _serve(suite: Suite, as_json: bool) -> None:
    async with suite:
        if not as_json:
            _print_suite(suite)
        await asyncio.Event().wait()


def _print_suite(suite: Suite) -> None:
    from headrace.cli.output import print_table

    rows = [(name, address, str(suite.pid(name)), suite.log_of(name)) for name, address in suite.addresses.items()]
    print_table("Headrace is up", ("service", "address", "pid", "log"), rows, "Ctrl-C stops it.")


def _line(change: Change) -> None:
    typer.echo(f"{change.service:<18} {change.what:<11} {change.detail}".rstrip(), err=True)


def _json_line(change: Change) -> None:
    import json

    typer.echo(json.dumps({"service": change.service, "change": change.what, "detail": change.detail}))
