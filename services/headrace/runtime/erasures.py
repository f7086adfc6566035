"""How the log says that people are to be forgotten, and that a consumer has done so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.runtime.clock import now_us
from headrace.runtime.errors import TrimmedError
from headrace.runtime.eventlog.log import EventLog, LoggedRecord, Record, partition_of
from headrace.runtime.eventlog.payloads import payload_of
from headrace.runtime.privacy import Privacy, owner_of
from headrace.v1.log_pb2 import ErasureDone, UserTombstone

TOMBSTONE = "user-tombstone"
DONE = "erasure-done"


@dataclass(frozen=True, slots=True)
class Erasure:
    """People to be forgotten with all that they did before `offset`, named by the keyed hashes of their keys."""

    id: str
    offset: int
    time_us: int
    digests: frozenset[bytes]
    partitions: frozenset[int]
    key_fingerprint: str

    @property
    def owners(self) -> frozenset[int]:
        """Their numbers in columns that say whose a row is."""
        return frozenset(owner_of(digest) for digest in self.digests)

    def names(self, privacy: Privacy, user_key: str) -> bool:
        """Whether the person is one of them."""
        # one key in 64 is hashed at most a partition named: a hash takes ten times as long
        return partition_of(user_key) in self.partitions and privacy.digest(user_key) in self.digests


def erasure_of(record: LoggedRecord) -> Erasure:
    """What a tombstone's record says. CorruptDataError: nobody can tell who is to be forgotten."""
    said = payload_of(UserTombstone, record)
    return Erasure(
        said.erasure_id,
        record.offset,
        said.time_us,
        frozenset(said.digests),
        frozenset(said.partitions),
        said.key_fingerprint,
    )


def tombstone(erasure_id: str, user_keys: Mapping[str, bytes], time_us: int, key_fingerprint: str) -> Record:
    """The record that asks all consumers to forget people, given their keys with the digests."""
    payload = UserTombstone(
        erasure_id=erasure_id,
        digests=sorted(user_keys.values()),
        partitions=sorted({partition_of(key) for key in user_keys}),
        time_us=time_us,
        key_fingerprint=key_fingerprint,
    )
    name = f"erasure:{erasure_id}"
    return Record(TOMBSTONE, name, name, time_us, payload.SerializeToString(deterministic=True))


def done(erasure_id: str, consumer: str, key_fingerprint: str, erased: Mapping[str, int]) -> Record:
    """The record by which a consumer says that it has forgotten them."""
    payload = ErasureDone(
        erasure_id=erasure_id, consumer=consumer, key_fingerprint=key_fingerprint, erased=dict(erased)
    )
    name = f"erasure:{erasure_id}"
    return Record(DONE, name, f"{name}:{consumer}", now_us(), payload.SerializeToString(deterministic=True))


async def read_left(log: EventLog, after_offset: int, kind: str, limit: int = 1_000) -> list[LoggedRecord]:
    """The next records of a kind; what the log has forgotten is passed over."""
    try:
        return await log.read(after_offset, limit=limit, kinds=(kind,))
    except TrimmedError as error:
        return await log.read(error.oldest_offset - 1, limit=limit, kinds=(kind,))


def done_of(record: LoggedRecord) -> ErasureDone:
    return payload_of(ErasureDone, record)
