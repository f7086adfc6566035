"""What those with a memory knew before a restart, from the newest records of the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.ingest.arrivals import Arrival, arrival
from headrace.runtime.errors import CorruptDataError, TrimmedError
from headrace.runtime.eventlog import EventLog
from headrace.runtime.eventlog.payloads import pass_over, payload_of
from headrace.v1.log_pb2 import LoggedUserEvent

_READ_LIMIT = 2_000


async def remember_newest(tell: Sequence[Callable[[Arrival], object]], log: EventLog, count: int) -> None:
    """Tells whoever remembers of the user events among the newest `count` records, in the order of the log."""
    end = (await log.end())[0]
    offset = max(0, end - count)
    while offset < end:
        try:
            records = await log.read(offset, limit=_READ_LIMIT, kinds=("user-event",))
        except TrimmedError as error:
            offset = error.oldest_offset - 1
            continue
        for record in records:
            try:
                one = arrival(payload_of(LoggedUserEvent, record).event)
            except CorruptDataError as error:
                pass_over(record, error)
                continue
            for remember in tell:
                remember(one)
        offset = records[-1].offset if len(records) == _READ_LIMIT else end
