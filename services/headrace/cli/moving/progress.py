"""How far a copy of the log is, and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from headrace.cli.moving.copying import Copied


@contextmanager
def log_progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; what is yielded takes an offset and the end."""
    bar = Progress(
        TextColumn("copying the log"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
    with bar:
        task = bar.add_task("log", total=None)
        yield lambda offset, end: bar.update(task, completed=offset, total=end)


def facts_of(copied: Copied) -> dict[str, object]:
    """What was copied, as names and values."""
    rows = {f"rows_of_{table}": count for table, count in copied.rows.items()}
    return {"records": copied.log.records, "end_offset": copied.log.end, "sha256": copied.log.sha256, **rows}
