"""`headrace backup` and `headrace restore`: a suite's data as a folder that a suite can be started from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.options import DATA_DIR, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.moving.copying import Copied


@told
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Copy a suite's data into a folder, while it runs or not.

    Everything that was acknowledged before this began is in it: the log, the
    catalogue, the registry with its releases, and what was learned and folded.
    Whatever the backends are, the backup is in files, with checksums, and a
    suite can be started on it. Vectors are left out: the trainer fills an empty
    index again. Artifacts on an object store stay there.

    \b
    Examples:
      headrace backup /backups/2026-03-01
      HEADRACE_EVENT_LOG_URL=postgresql://shop@db/events headrace backup /backups/today
    """
    from headrace import __version__
    from headrace.cli.moving.backends import backends, configured
    from headrace.cli.moving.state_files import copy_files, write_manifest

    _require_empty(folder, "FOLDER")
    source = configured(data_dir)
    # states first: none of them may be ahead of the log
    copy_files(data_dir, folder)
    copied = _copied(source, backends(folder), as_json)
    manifest = write_manifest(folder, __version__, copied.log)
    _print(folder, copied, {"files": len(manifest.files)}, as_json)


@told
def restore(
    folder: Annotated[Path, typer.Argument(help="What `headrace backup` made.")],
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Put a backup back: into a new data folder, and the backends that the environment names.

    Every file is checked first. The data folder and the databases must be
    empty. Events come back at their own offsets, so what was learned and
    folded goes on from them.

    \b
    Examples:
      headrace restore /backups/2026-03-01 --data-dir .headrace
      HEADRACE_EVENT_LOG_URL=postgresql://shop@db/events headrace restore /backups/today
    """
    from headrace.cli.moving.backends import backends, configured
    from headrace.cli.moving.state_files import copy_files, read_manifest
    from headrace.runtime.atomic import sync_tree

    _require_empty(data_dir, "--data-dir")
    manifest = read_manifest(folder)
    copy_files(folder, data_dir)
    copied = _copied(backends(folder), configured(data_dir), as_json)
    sync_tree(data_dir)
    _print(data_dir, copied, {"files": len(manifest.files)}, as_json)


def _require_empty(folder: Path, argument: str) -> None:
    from headrace.runtime.errors import InvalidRequestError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidRequestError.of(argument, f"must be a new or an empty folder, {folder} is not")


def _copied(source: Any, target: Any, quiet: bool) -> Copied:
    import asyncio

    from headrace.cli.moving.copying import copy_backends
    from headrace.cli.moving.progress import log_progress

    with log_progress(quiet) as show:
        return asyncio.run(copy_backends(source, target, show))


def _print(folder: Path, copied: Copied, more: dict[str, int], as_json: bool) -> None:
    from headrace.cli.moving.progress import facts_of
    from headrace.cli.output import print_facts, print_json

    facts = {"folder": str(folder), **facts_of(copied), **more}
    if as_json:
        print_json(facts)
    else:
        print_facts({name.replace("_", " "): value for name, value in facts.items()})
