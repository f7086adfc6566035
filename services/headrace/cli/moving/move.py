"""`headrace move`: from embedded backends to servers, or between servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.options import DATA_DIR, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.moving.backends import Backends
    from headrace.cli.moving.copying import Copied


@told
def move(
    event_log: Annotated[
        str, typer.Option(metavar="URL", help="Where the event log goes: postgresql://…", show_default=False)
    ] = "",
    catalogue: Annotated[
        str,
        typer.Option(metavar="URL", help="Where the catalogue goes: postgresql://…", show_default=False),
    ] = "",
    registry: Annotated[
        str, typer.Option(metavar="URL", help="Where the registry goes: postgresql://…", show_default=False)
    ] = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Copy the log, the catalogue and the registry to other backends.

    The suite must be stopped. The log is copied at its own offsets and read
    back; features, weights and vectors go on from where they stand. Nothing is
    removed from the old backends. A move that was broken off goes on when it is
    run again. At the end it prints the variables to start the suite with.

    \b
    Examples:
      headrace move --event-log postgresql://shop@db/events
      headrace move --catalogue postgresql://shop@db/shop --registry postgresql://shop@db/shop
    """
    import asyncio

    from headrace.cli.moving.backends import backends, configured
    from headrace.cli.moving.copying import copy_backends
    from headrace.cli.moving.progress import log_progress
    from headrace.cli.suite import locked
    from headrace.runtime.errors import InvalidRequestError

    if not (event_log or catalogue or registry):
        raise InvalidRequestError.of("--event-log, --catalogue, --registry", "at least one must be given")
    source = configured(data_dir)
    target = backends(
        data_dir,
        event_log=event_log or source.common.event_log_url,
        catalogue=catalogue or source.catalogue.url,
        registry=registry or source.registry.url,
    )
    with locked(data_dir), log_progress(as_json) as show:
        copied = asyncio.run(copy_backends(source, target, show))
    _print(target, copied, as_json)


def _print(target: Backends, copied: Copied, as_json: bool) -> None:
    from headrace.cli.moving.progress import facts_of
    from headrace.cli.output import print_facts, print_json

    variables = {
        "HEADRACE_EVENT_LOG_URL": target.common.event_log_url,
        "HEADRACE_INGEST_DATABASE_URL": target.catalogue.url,
        "HEADRACE_TRAINER_REGISTRY_URL": target.registry.url,
    }
    if as_json:
        print_json({**facts_of(copied), "environment": variables})
        return
    print_facts({name.replace("_", " "): value for name, value in facts_of(copied).items()})
    typer.echo("\nstart the suite with:")
    for name, value in variables.items():
        typer.echo(f"  {name}={value}")
