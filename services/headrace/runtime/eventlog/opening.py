"""Opens the event log that a process is told of: the embedded one, or a server's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.runtime.errors import NotFoundError, SettingsError
from headrace.runtime.eventlog.kafka_url import SCHEME as KAFKA
from headrace.runtime.eventlog.log import EventLog
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.settings import CommonSettings

_VARIABLE = "HEADRACE_EVENT_LOG_URL"


def open_event_log(common: CommonSettings, *, max_waiting: int = 50_000) -> EventLog:
    """The log at `event_log_url`; SQLite in the data folder when that is empty.

    `max_waiting` bounds the records that wait for a commit; beyond it `append` is refused.
    SettingsError: the URL is wrong, or the extra that it needs is not installed.
    """
    if not common.event_log_url:
        return SqliteEventLog(_embedded(common), max_waiting=max_waiting)
    if common.event_log_url.startswith(KAFKA):
        return _kafka(common, max_waiting)
    return _postgres(common.event_log_url, max_waiting)


def _kafka(common: CommonSettings, max_waiting: int) -> EventLog:
    with _extra("kafka"):
        from headrace.runtime.eventlog.kafka import KafkaEventLog

    return KafkaEventLog(common.event_log_url, common.data_dir / "event-log-ids", max_waiting=max_waiting)


def _postgres(url: str, max_waiting: int) -> EventLog:
    with _extra("postgres"):
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        from headrace.runtime.eventlog.postgres import PostgresEventLog
    try:
        conninfo_to_dict(url)
    except ProgrammingError as error:
        raise SettingsError(f"{_VARIABLE}: {str(error).strip()}") from error
    return PostgresEventLog(url, max_waiting=max_waiting)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Imports what only those have who installed an extra."""
    try:
        yield
    except ImportError as error:
        raise SettingsError(f"{_VARIABLE} needs the extra {name}: pip install 'headrace[{name}]' ({error})") from error


def require_event_log(common: CommonSettings) -> None:
    """NotFoundError when the log is the embedded one and nobody has begun it: opening would make an empty one."""
    if not common.event_log_url and not _embedded(common).is_file():
        raise NotFoundError(f"no event log at {_embedded(common)}: the suite's folder is another one")


def _embedded(common: CommonSettings) -> Path:
    return common.data_dir / "events.db"
