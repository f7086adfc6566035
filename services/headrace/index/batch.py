"""A batch of deltas as a sender gives it, and the part of it that is new to a space."""

# N rows, D dimension

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from headrace.index.columns import NORM_LIMIT, matrix, norms, ordinals_column
from headrace.index.rows import F32, I64, U32, Change, Mask, Rows
from headrace.runtime.errors import Faults
from headrace.runtime.shards import Shard

_SEQUENCE_LIMIT = 1 << 62


@dataclass(frozen=True)
class Batch:
    """Absolute values in sequence order: row i has sequence `first_sequence + i`, unless `part` says otherwise."""

    space: str
    first_sequence: int
    ordinals: U32
    vectors_ND: F32
    tombstones_N: Mask
    log_offset: int
    part: Part | None = None

    def __len__(self) -> int:
        return len(self.ordinals)

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + (self.part.sent_rows if self.part else len(self)) - 1

    @property
    def places(self) -> I64:
        """Of each row, how far its sequence lies above the first one; ascending."""
        return self.part.places if self.part else np.arange(len(self), dtype=np.int64)

    def rows_until(self, sequence: int) -> int:
        """How many rows have a sequence up to this one."""
        count = sequence + 1 - self.first_sequence
        return int(np.searchsorted(self.part.places, count)) if self.part else min(max(0, count), len(self))

    def after(self, sequence: int) -> Batch:
        """The rows with a higher sequence."""
        skip = max(0, sequence + 1 - self.first_sequence)
        start = self.rows_until(sequence)
        return Batch(
            self.space,
            self.first_sequence + skip,
            self.ordinals[start:],
            self.vectors_ND[start:],
            self.tombstones_N[start:],
            self.log_offset,
            Part(self.part.places[start:] - skip, self.part.sent_rows - skip) if self.part else None,
        )

    def owned_by(self, shard: Shard) -> Batch:
        """The rows that a shard holds; their sequences stay, and so does the last one."""
        if shard.count == 1:
            return self
        kept = np.flatnonzero(shard.owns(self.ordinals))
        part = Part(self.places[kept], self.last_sequence - self.first_sequence + 1)
        rows = (self.ordinals[kept], self.vectors_ND[kept], self.tombstones_N[kept])
        return Batch(self.space, self.first_sequence, *rows, self.log_offset, part)

    def change(self) -> Change:
        """What the batch makes of a space: of several rows for one item, the last."""
        _, from_end = np.unique(self.ordinals[::-1], return_index=True)
        last = len(self) - 1 - from_end
        deleted = self.tombstones_N[last]
        kept = np.sort(last[~deleted])
        rows = Rows(
            self.ordinals[kept],
            self.vectors_ND[kept],
            self.first_sequence + (self.part.places[kept] if self.part else kept),
            np.full(len(kept), self.log_offset, np.int64),
        )
        return Change(rows, self.ordinals[last[deleted]], self.last_sequence, self.log_offset)


@dataclass(frozen=True)
class Part:
    """Which rows of a batch as sent these are: their places in it, ascending, and how many rows it had."""

    places: I64
    sent_rows: int


@dataclass(frozen=True)
class BatchColumns:
    """A batch as it came: nothing of it is believed yet."""

    space: str
    first_sequence: int
    ordinals: bytes
    rows: int
    columns: int
    values: bytes
    tombstones: bytes
    checksum: int
    log_offset: int


def checked_batch(given: BatchColumns, dimension: int, max_ordinal: int) -> Batch:
    """The batch. Raises InvalidRequestError with every fault."""
    faults = Faults()
    faults.check(
        1 <= given.first_sequence < _SEQUENCE_LIMIT, "first_sequence", f"must be at least 1, got {given.first_sequence}"
    )
    faults.check(given.log_offset >= 0, "log_offset", f"must not be negative, got {given.log_offset}")
    _check_checksum(given, faults)
    ordinals = ordinals_column(given.ordinals, "item_ordinals", faults, max_ordinal)
    rows = len(given.ordinals) // 4
    faults.check(given.rows == rows, "vectors.rows", f"must be one an ordinal ({rows}), got {given.rows}")
    # an empty batch may leave its shape out
    columns = given.columns if given.rows else dimension
    faults.check(columns == dimension, "vectors.columns", f"must be the space's dimension {dimension}, got {columns}")
    vectors_ND = matrix(given.rows, columns, given.values, "vectors", faults)
    tombstones_N = _tombstones(given.tombstones, rows, faults)
    if vectors_ND is not None and len(vectors_ND) == len(tombstones_N):
        _check_norms(vectors_ND, tombstones_N, faults)
    faults.raise_if_any()
    assert vectors_ND is not None
    return Batch(given.space, given.first_sequence, ordinals, vectors_ND, tombstones_N, given.log_offset)


def checksum(ordinals: bytes, values: bytes, tombstones: bytes) -> int:
    """CRC-32 of a batch's columns."""
    return zlib.crc32(tombstones, zlib.crc32(values, zlib.crc32(ordinals)))


def _check_checksum(given: BatchColumns, faults: Faults) -> None:
    actual = checksum(given.ordinals, given.values, given.tombstones)
    faults.check(actual == given.checksum, "checksum", f"is {given.checksum}, but the columns have {actual}")


def _tombstones(data: bytes, rows: int, faults: Faults) -> Mask:
    if not data:
        return np.zeros(rows, np.bool_)
    faults.check(len(data) == rows, "tombstones", f"must be empty or one byte a row ({rows}), got {len(data)}")
    flags = np.frombuffer(data, np.uint8)
    faults.check(int(flags.max()) <= 1, "tombstones", f"must be 0 or 1, got {int(flags.max())}")
    return flags.astype(np.bool_)


def _check_norms(vectors_ND: F32, tombstones_N: Mask, faults: Faults) -> None:
    norms_N = norms(vectors_ND)
    good_N = (norms_N > 0) & (norms_N <= NORM_LIMIT)
    wrong_N = np.where(tombstones_N, norms_N != 0, ~good_N)
    if wrong_N.any():
        row = int(np.argmax(wrong_N))
        wanted = "zeros for a tombstone" if tombstones_N[row] else f"a norm above 0 and at most {NORM_LIMIT:g}"
        faults.add("vectors", f"row {row} must be {wanted}, got norm {norms_N[row]:g}")
