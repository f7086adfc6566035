"""A topic as a log in which every event id is once: what comes again is known, and left out.

Each call takes its time and belongs in the one thread that uses this. Offsets count from 1 here, as in every log.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path

from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.eventlog.group_commit import placed
from headrace.runtime.eventlog.kafka_ids import EventIds
from headrace.runtime.eventlog.kafka_records import (
    GAP,
    Written,
    event_id_of,
    logged_record,
    message_of,
    restored_message,
)
from headrace.runtime.eventlog.kafka_topic import Topic
from headrace.runtime.eventlog.kafka_url import KafkaUrl
from headrace.runtime.eventlog.log import Appended, LoggedRecord, Record, check_follows, check_not_trimmed

log = logging.getLogger(__name__)

# records folded or read a call, so that other calls get their turn
_AT_ONCE = 5_000
# so many take some seconds
_MANY = 200_000


class FoldedTopic:
    """A topic with the fold of its ids, which is kept in a file of `ids_folder`; opened at the first use."""

    def __init__(self, url: KafkaUrl, ids_folder: Path) -> None:
        self._url = url
        self._ids_folder = ids_folder
        self._topic = Topic(url)
        self._opened: EventIds | None = None
        self._forgotten = 0
        self._has_told = False

    @property
    def _ids(self) -> EventIds:
        if self._opened is None:
            self._opened = EventIds(self._ids_folder, self._topic.open())
        return self._opened

    def fold_some(self) -> bool:
        """Takes the next ids in; whether those of all records of this moment are now."""
        ids = self._ids
        low, high = self._topic.bounds()
        if high < ids.offset:
            log.warning("event_ids_folded_anew", extra={"reason": f"{self._url} ends at {high}, not at {ids.offset}"})
            ids.begin_anew()
        if low > ids.offset:
            ids.pass_over(low)
        if low > self._forgotten and ids.forget_some(low):
            self._forgotten = low
        if not self._has_told and high - ids.offset > _MANY:
            log.info("folding_event_ids", extra={"from": ids.offset, "until": high})
            self._has_told = True
        self._fold(min(high, ids.offset + _AT_ONCE))
        return ids.offset >= high

    def _fold(self, until: int) -> None:
        start = self._ids.offset
        self._ids.fold([event_id_of(message) for message in self._topic.newest(start, until)], start)

    def offsets_of(self, event_ids: Collection[str]) -> dict[str, int]:
        """Where the records with these event ids are, as far as they are folded."""
        return {event_id: first + 1 for event_id, first in self._ids.firsts(list(event_ids)).items()}

    def append(self, records: Sequence[Record]) -> list[Appended] | None:
        """Where the records are, once they are durable; None, and nothing is done: the fold must catch up first."""
        if not self.fold_some():
            return None
        ids = self._ids
        offsets = ids.firsts([record.event_id for record in records])
        expected, new = placed(records, offsets, ids.offset)
        if not new:
            return [Appended(known.offset + 1, duplicate=True) for known in expected]
        written = self._topic.append([message_of(record) for _, record in new])
        own = {record.event_id: offset for offset, (_, record) in zip(written, new, strict=True)}
        # another process may have written one of them at the same time: the first counts
        while ids.offset <= max(written):
            self._fold(min(max(written) + 1, ids.offset + _AT_ONCE))
        offsets |= ids.firsts(list(own))
        return [
            Appended(offsets[record.event_id] + 1, place.duplicate or offsets[record.event_id] != own[record.event_id])
            for record, place in zip(records, expected, strict=True)
        ]

    def restore(self, records: Sequence[LoggedRecord]) -> bool:
        """Puts records at their own offsets; False, and nothing is done: the fold must catch up first.

        Offsets that the other log has no record at are filled with messages that nobody is shown.
        """
        if not self.fold_some():
            return False
        ids = self._ids
        check_follows(records, ids.offset)
        for part in _batched(_without_gaps(records, ids.offset), _AT_ONCE):
            written = self._topic.append(part)
            if written != list(range(ids.offset, ids.offset + len(part))):
                raise FailedPreconditionError(f"event log {self._url}: somebody else appends while it is restored")
            self._fold(written[-1] + 1)
        return True

    def read_some(self, after: int, limit: int) -> tuple[list[LoggedRecord], int, bool]:
        """Records after an offset, up to which offset they were read, and whether that was the end.

        TrimmedError: the next one was trimmed away; after 0 begins with the oldest that there is.
        """
        ids = self._ids
        low, high = self._topic.bounds()
        check_not_trimmed(after, max(low, ids.begins) + 1)
        start = max(after, low)
        until = min(high, start + min(limit, _AT_ONCE))
        if until > ids.offset:
            self.fold_some()
            until = min(until, ids.offset)
        if until <= start:
            return [], after, start >= high
        repeats = ids.repeats(start, until)
        messages = enumerate(self._topic.records(start, until), start)
        found = [logged_record(message) for offset, message in messages if offset not in repeats]
        return found, until, until >= high

    def wait_some(self, after: int, timeout_s: float) -> bool:
        """Whether there is a record after an offset, waiting for one."""
        until = self._topic.has_more(self._ids.offset, timeout_s)
        self._fold(min(until, self._ids.offset + _AT_ONCE))
        return self.has_after(after)

    def has_after(self, after: int) -> bool:
        newest = self._ids.newest()
        return newest is not None and newest + 1 > after

    def end(self) -> tuple[int, int]:
        """Offset and append time of the newest record; (0, 0) without any. The fold must have caught up."""
        newest = self._ids.newest()
        if newest is None:
            return 0, 0
        (message,) = self._topic.records(newest, newest + 1)
        found = logged_record(message)
        return found.offset, found.append_time_us

    def trim(self, before_us: int) -> int:
        """Deletes what is old, but for the newest record; how many. The fold must have caught up."""
        newest = self._ids.newest()
        if newest is None:
            return 0
        low, _ = self._topic.bounds()
        # the broker's times are whole milliseconds
        first = max(self._topic.delete(-(-before_us // 1_000), newest), low)
        count = first - low - len(self._ids.repeats(low, first))
        self._ids.forget_some(first)
        return count

    def close(self) -> None:
        self._topic.close()
        if self._opened is not None:
            self._opened.close()


def _without_gaps(records: Sequence[LoggedRecord], end: int) -> Iterator[Written]:
    """A message for every offset of the log after `end`."""
    for record in records:
        yield from repeat(GAP, record.offset - 1 - end)
        yield restored_message(record)
        end = record.offset


def _batched(messages: Iterator[Written], size: int) -> Iterator[list[Written]]:
    while part := list(islice(messages, size)):
        yield part
