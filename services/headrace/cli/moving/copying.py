"""A suite's backends copied into others: the SQL states first, then the log, which must hold all that they rest on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from headrace.cli.moving.backends import Backends
from headrace.cli.moving.log_copy import LogCopy, copy_log, described
from headrace.cli.moving.sql_copy import copy_tables
from headrace.runtime.eventlog import EventLog
from headrace.runtime.eventlog.opening import open_event_log, require_event_log
from headrace.runtime.settings import CommonSettings


@dataclass(frozen=True, slots=True)
class Copied:
    """The log as it is at both ends, and rows by table."""

    log: LogCopy
    rows: dict[str, int] = field(default_factory=dict)


async def copy_backends(source: Backends, target: Backends, show: Callable[[int, int], None]) -> Copied:
    """Copies what differs between the two; `show` is told the log's offset and end.

    FailedPreconditionError: the target holds something else already.
    """
    require_event_log(source.common)
    rows: dict[str, int] = {}
    for given, taken in zip(source.sql_states, target.sql_states, strict=True):
        if given.is_begun and given.url != taken.url:
            taken.make_room()
            rows |= copy_tables(given.url, taken.url, given.metadata, given.migrations)
    async with _opened(source.common) as given_log:
        if source.common == target.common:
            return Copied(await described(given_log, (await given_log.end())[0]), rows)
        async with _opened(target.common) as taken_log:
            return Copied(await copy_log(given_log, taken_log, show), rows)


@asynccontextmanager
async def _opened(common: CommonSettings) -> AsyncIterator[EventLog]:
    log = open_event_log(common)
    try:
        yield log
    finally:
        await log.close()
