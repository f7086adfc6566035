"""One event log copied into another, at the same offsets."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from headrace.runtime.errors import CorruptDataError, FailedPreconditionError
from headrace.runtime.eventlog import EventLog, LoggedRecord

# about as large as a group commit
_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class LogCopy:
    """What a log holds: records, the offset of the newest, SHA-256 over all of them."""

    records: int
    end: int
    sha256: str


async def copy_log(source: EventLog, target: EventLog, show: Callable[[int, int], None]) -> LogCopy:
    """Copies what is in `source` now, and reads it back. `show` is told offset and end.

    A copy that was broken off goes on where it ended. FailedPreconditionError: `target` holds something
    else. CorruptDataError: what was read back is not what was copied.
    """
    end = (await source.end())[0]
    begun = (await target.end())[0]
    if begun and await described(target, begun) != await described(source, begun):
        raise FailedPreconditionError(f"the other log holds {begun} offsets of something else: name an empty one")
    async for records in _batches(source, begun, end):
        await target.restore(records)
        show(records[-1].offset, end)
    copied, given = await described(target, end), await described(source, end)
    if copied != given:
        raise CorruptDataError(f"read back {copied}, copied {given}")
    return copied


async def described(log: EventLog, until: int) -> LogCopy:
    """The log up to an offset."""
    digest, count, end = hashlib.sha256(), 0, 0
    async for records in _batches(log, 0, until):
        for record in records:
            digest.update(repr(tuple(record)).encode())
        count, end = count + len(records), records[-1].offset
    return LogCopy(count, end, digest.hexdigest())


async def _batches(log: EventLog, after: int, until: int) -> AsyncIterator[Sequence[LoggedRecord]]:
    while after < until:
        records = [one for one in await log.read(after, limit=_BATCH) if one.offset <= until]
        if not records:
            return
        yield records
        after = records[-1].offset
