"""Slices of the log by their bounds, to be learned as another process or another run learns them."""

from __future__ import annotations

from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.trainer.records import Slice, slice_of

_READ = 5_000


async def read_slice(log: EventLog, after: int, until: int) -> Slice:
    """The records with `after` < offset <= `until`. TrimmedError: the log has forgotten some of them."""
    records: list[LoggedRecord] = []
    reached = after
    while reached < until:
        part = await log.read(reached, limit=min(until - reached, _READ))
        records += [record for record in part if record.offset <= until]
        if not part or part[-1].offset >= until:
            break
        reached = part[-1].offset
    return slice_of(records, after, until)
