"""The event log on Kafka's protocol: one topic of one partition, because a log is one order.

Offset o of the log is offset o - 1 of the partition. A record is durable when all in-sync replicas have it
(`acks=all`); an idempotent producer keeps the order, and there are no transactions, so offsets have no gaps but
for repeats.

A broker does not know event ids. Every opening therefore folds the topic to "which offset has each id first"
(`kafka_ids`), which it keeps in a file. `append` folds up to the end, writes what is not known, and folds up to
what it wrote: of two processes that write one id at the same time the first offset counts, in every fold, and
`read` leaves the other record out. A producer that dies between writing and being told leaves records whose ids
the next one knows: what its client sends again is a duplicate.

The append time is the message's timestamp, in whole milliseconds: the same for all readers, and what `trim`
looks for. In a topic that is made here it is the broker's clock.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from headrace.runtime.errors import InvalidRequestError, UnavailableError
from headrace.runtime.eventlog.group_commit import GroupCommit
from headrace.runtime.eventlog.kafka_fold import FoldedTopic
from headrace.runtime.eventlog.kafka_records import size_of
from headrace.runtime.eventlog.kafka_topic import LARGEST_BYTES
from headrace.runtime.eventlog.kafka_url import kafka_url
from headrace.runtime.eventlog.log import Appended, LoggedRecord, Record

T = TypeVar("T")

# a waiter holds the thread so long; it wakes at once when something comes
_WAIT_S = 0.05


class KafkaEventLog:
    """An `EventLog` in the topic at `url` (`kafka://host:port,host:port/topic`), made when it is missing.

    `ids_folder` keeps which event ids are known. `max_waiting` bounds the records that wait to be written;
    beyond it `append` is refused.
    """

    def __init__(self, url: str, ids_folder: Path, *, max_waiting: int = 50_000) -> None:
        self._ids_folder = ids_folder
        self._folded = FoldedTopic(kafka_url(url), ids_folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eventlog-kafka")
        self._commits = GroupCommit(self._commit, max_waiting)

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        for record in records:
            if (size := size_of(record)) > LARGEST_BYTES:
                raise InvalidRequestError.of(record.event_id, f"must be at most {LARGEST_BYTES} bytes, has {size}")
        return await self._commits.append(records)

    async def _commit(self, records: Sequence[Record]) -> list[Appended]:
        while (appended := await self._run(partial(self._folded.append, records))) is None:
            pass
        return appended

    async def read(
        self,
        after_offset: int,
        *,
        limit: int = 1000,
        kinds: Collection[str] = (),
        partitions: Collection[int] = (),
    ) -> list[LoggedRecord]:
        found: list[LoggedRecord] = []
        is_end = False
        while not is_end and len(found) < limit:
            records, after_offset, is_end = await self._run(partial(self._folded.read_some, after_offset, limit))
            found += [
                record
                for record in records
                if (not kinds or record.kind in kinds) and (not partitions or record.partition in partitions)
            ]
        return found[:limit]

    async def wait(self, after_offset: int, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        await self._catch_up()
        has_more = await self._run(partial(self._folded.has_after, after_offset))
        while not has_more and (left := until - loop.time()) > 0:
            has_more = await self._run(partial(self._folded.wait_some, after_offset, min(left, _WAIT_S)))
        return has_more

    async def offsets_of(self, event_ids: Collection[str]) -> dict[str, int]:
        await self._catch_up()
        return await self._run(partial(self._folded.offsets_of, event_ids))

    async def end(self) -> tuple[int, int]:
        await self._catch_up()
        return await self._run(self._folded.end)

    async def trim(self, before_us: int) -> int:
        await self._catch_up()
        return await self._run(partial(self._folded.trim, before_us))

    async def restore(self, records: Sequence[LoggedRecord]) -> None:
        while records and not await self._run(partial(self._folded.restore, records)):
            pass

    async def _catch_up(self) -> None:
        while not await self._run(self._folded.fold_some):
            pass

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"known event ids in {self._ids_folder}: {error}", retry_after_s=0.5) from error

    async def close(self) -> None:
        await self._commits.finish()
        await self._run(self._folded.close)
        self._thread.shutdown()
