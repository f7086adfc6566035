"""What an event log promises, whatever keeps it."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from headrace.runtime.errors import FailedPreconditionError, TrimmedError

PARTITIONS = 64
# what a record is whose person was forgotten
ERASED = "erased"


# records are tuples: made in a third of the time that a frozen dataclass takes, and there is one an event
class Record(NamedTuple):
    """A thing that happened, to be appended.

    `event_id` is the idempotency key: a second record with it changes nothing. `key` names whose
    record it is and decides the partition. `payload` is a serialised message of headrace.v1.
    """

    kind: str
    key: str
    event_id: str
    time_us: int
    payload: bytes
    traceparent: str = ""


class LoggedRecord(NamedTuple):
    """A record with its place in the log: offsets start at 1 and grow in the order of appending."""

    offset: int
    partition: int
    append_time_us: int
    kind: str
    key: str
    event_id: str
    time_us: int
    payload: bytes
    traceparent: str


class Appended(NamedTuple):
    """Where a record is; `duplicate` when it was there before, at that offset."""

    offset: int
    duplicate: bool


class EventLog(Protocol):
    """Append-only, durable, read by any number of followers in any process.

    A reader that has read up to offset o will never see a record at or below o appear later.
    """

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """Appends all, in order; durable (fsync) when it returns. Concurrent calls share a commit.

        OverloadedError when too much is waiting: nothing of the call was taken.
        """
        ...

    async def read(
        self,
        after_offset: int,
        *,
        limit: int = 1000,
        kinds: Collection[str] = (),
        partitions: Collection[int] = (),
    ) -> list[LoggedRecord]:
        """Up to `limit` records with offset > `after_offset`, in order.

        Of all kinds and partitions, unless some are named. TrimmedError: what follows on `after_offset` was
        trimmed away; 0 begins with the oldest record that there is.
        """
        ...

    async def wait(self, after_offset: int, timeout_s: float) -> bool:
        """Whether there is anything after `after_offset`, waiting up to `timeout_s` for it."""
        ...

    async def offsets_of(self, event_ids: Collection[str]) -> Mapping[str, int]:
        """Where the records with these event ids are; those that the log does not hold are left out."""
        ...

    async def end(self) -> tuple[int, int]:
        """Offset and append time (Unix µs) of the newest record; (0, 0) when empty."""
        ...

    async def trim(self, before_us: int) -> int:
        """Forgets records appended before a time (and so their event ids), but for the newest; returns how many.

        In bounded steps, between which others append.
        """
        ...

    async def restore(self, records: Sequence[LoggedRecord]) -> None:
        """Puts records of another log here at their own offsets and times, durable when it returns.

        For moving a log and for backups: nobody else may append meanwhile. FailedPreconditionError when
        this log is not before the first of them.
        """
        ...

    async def close(self) -> None: ...


def check_follows(records: Sequence[LoggedRecord], end: int) -> None:
    """FailedPreconditionError unless the records come after offset `end`, each after the one before."""
    for record in records:
        if record.offset <= end:
            raise FailedPreconditionError(f"record {record.offset} cannot be restored into a log that ends at {end}")
        end = record.offset


def check_not_trimmed(after_offset: int, oldest_offset: int) -> None:
    """TrimmedError when records are missing between a reader and the oldest that there is; 0 begins with that one."""
    if 0 < after_offset < oldest_offset - 1:
        raise TrimmedError(after_offset, oldest_offset)


@runtime_checkable
class ErasableLog(EventLog, Protocol):
    """A log whose records can be changed where they stand. Not every one can: brokers can't."""

    async def find(
        self, *, keys: Collection[str] = (), text: bytes = b"", before_offset: int, after_offset: int = 0
    ) -> list[LoggedRecord]:
        """Up to 1,000 records with `after_offset` < offset < `before_offset`, in order.

        Those of `keys`, or, when `text` is given, those whose payload holds it. It reads the whole range.
        """
        ...

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        """Gives records other payloads, by offset; durable when it returns."""
        ...

    async def erase(self, keys: Collection[str], before_offset: int) -> int:
        """Empties the records of `keys` with offset < `before_offset`; how many there were.

        Their offsets stay, of kind "erased"; key, event id, payload and trace are gone, also from the pages that the
        backend has freed (docs/privacy.md says what a server may still keep). Event ids are forgotten.
        """
        ...


def partition_of(key: str) -> int:
    """The partition of a key: stable over processes, versions and backends."""
    return zlib.crc32(key.encode()) % PARTITIONS
