"""What a space was made of, in one short number: equal for replicas that took the same rows in the same order.

The hash is a chain over rows, so how they came in batches does not matter, and a chain goes on where a
snapshot left it. It is marked at round sequences, because two replicas are seldom at the same one.
"""

# N rows, D dimension

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headrace.index.batch import Batch
from headrace.index.rows import F32, U32, Mask

MARK_EVERY = 4_096
_MARKS_KEPT = 64
_NOTHING = (0, 0, 0)

Chain = tuple[int, int, int]


@dataclass(frozen=True)
class Mark:
    """The hash of all rows with a sequence up to this one."""

    sequence: int
    digest: str


@dataclass(frozen=True)
class RollingHash:
    """CRC-32 chains over ordinals, vectors and tombstones, and their newest marks, oldest first.

    `chain` is None where the first rows were taken by a build that did not hash them: then there are no marks.
    """

    sequence: int = 0
    chain: Chain | None = _NOTHING
    marks: tuple[Mark, ...] = ()

    def after(self, batch: Batch) -> RollingHash:
        """The hash with the rows of a batch that follows on."""
        if self.chain is None:
            return RollingHash(batch.last_sequence, None)
        chain, marks, start = self.chain, list(self.marks), 0
        for sequence in _round_sequences(self.sequence, batch.last_sequence):
            end = batch.rows_until(sequence)
            chain, start = _longer(chain, batch, start, end), end
            marks.append(Mark(sequence, _digest(chain)))
        return RollingHash(batch.last_sequence, _longer(chain, batch, start, len(batch)), tuple(marks[-_MARKS_KEPT:]))


def first_difference(ours: tuple[Mark, ...], theirs: tuple[Mark, ...]) -> int | None:
    """The first sequence at which two replicas are known to differ; None when none is known."""
    known = {mark.sequence: mark.digest for mark in theirs}
    differing = (mark.sequence for mark in ours if known.get(mark.sequence, mark.digest) != mark.digest)
    return next(differing, None)


def _round_sequences(after: int, until: int) -> Iterator[int]:
    yield from range((after // MARK_EVERY + 1) * MARK_EVERY, until + 1, MARK_EVERY)


def _longer(chain: Chain, batch: Batch, start: int, end: int) -> Chain:
    # by columns: interleaving them by row would cost more than the hash
    ordinals, vectors, tombstones = chain
    return (
        _crc(batch.ordinals[start:end], ordinals),
        _crc(batch.vectors_ND[start:end], vectors),
        _crc(batch.tombstones_N[start:end], tombstones),
    )


def _crc(column: U32 | F32 | Mask, before: int) -> int:
    return zlib.crc32(np.ascontiguousarray(column).data, before)


def _digest(chain: Chain) -> str:
    return "".join(f"{crc:08x}" for crc in chain)
