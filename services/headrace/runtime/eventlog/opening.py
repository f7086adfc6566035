"""Opens the event log that a process is told of: the embedded one, or a server's."""

from __future__ import annotations

from pathlib import Path

from headrace.runtime.errors import NotFoundError
from headrace.runtime.eventlog.log import EventLog
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.settings import CommonSettings


def open_event_log(common: CommonSettings, *, max_waiting: int = 50_000) -> EventLog:
    """The log at `event_log_url`; SQLite in the data folder when that is empty.

    `max_waiting` bounds the records that wait for a commit; beyond it `append` is refused.
    """
    if not common.event_log_url:
        return SqliteEventLog(_embedded(common), max_waiting=max_waiting)
    # only those who have the extra `postgres` can import it
    from headrace.runtime.eventlog.postgres import PostgresEventLog

    return PostgresEventLog(common.event_log_url, max_waiting=max_waiting)


def require_event_log(common: CommonSettings) -> None:
    """NotFoundError when the log is the embedded one and nobody has begun it: opening would make an empty one."""
    if not common.event_log_url and not _embedded(common).is_file():
        raise NotFoundError(f"no event log at {_embedded(common)}: the suite's folder is another one")


def _embedded(common: CommonSettings) -> Path:
    return common.data_dir / "events.db"
