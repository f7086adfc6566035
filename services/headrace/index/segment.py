"""What a segment promises, whatever memory and processor it uses."""

# N rows, D dimension, Q queries, K wanted

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from headrace.index.rows import F32, NO_ORDINALS, U8, U32, Change, Found, Mask, Rows


class SegmentView(Protocol):
    """A segment as it was after one change, for as long as it is open."""

    @property
    def count(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def log_offset(self) -> int: ...

    def chunks(self) -> Iterator[Rows]:
        """All rows, by ascending ordinal, in pieces of a few thousand at most."""
        ...


class Segment(Protocol):
    """Exact nearest vectors by inner product over rows that change all the time.

    One thread writes; any number search and read meanwhile. None of them waits for another, and
    each sees the segment as it was after one whole change.
    """

    dimension: int

    @property
    def kind(self) -> str:
        """Names what it is made of now."""
        ...

    def __len__(self) -> int: ...

    @property
    def sequence(self) -> int:
        """Of the last change that is visible."""
        ...

    @property
    def log_offset(self) -> int: ...

    def write(self, change: Change) -> None:
        """Makes a change visible to every later call, at once."""
        ...

    def fill(self, parts: Iterable[Rows], sequence: int, log_offset: int) -> None:
        """Takes all rows of an empty segment, and then stands at a sequence."""
        ...

    def search(self, queries_QD: F32, k: int, allow: U8 | None = None, deny: U32 = NO_ORDINALS) -> Found:
        """The `k` best rows of each query, exactly, among those that a filter leaves.

        `allow` holds a bit an ordinal (o % 8 of byte o / 8); without it all are allowed. `deny` are ordinals.
        """
        ...

    def get(self, ordinals: U32) -> Rows:
        """Those of `ordinals` that exist, in the order asked, all as of one moment."""
        ...

    def held(self) -> Mask:
        """For each ordinal up to some end whether there is a row of it; beyond there are none."""
        ...

    def view(self) -> AbstractContextManager[SegmentView]:
        """The segment as it is now, to be read at leisure while it changes."""
        ...

    def memory_bytes(self) -> int: ...


def fill_by_writing(segment: Segment, parts: Iterable[Rows], sequence: int, log_offset: int) -> None:
    """`Segment.fill` for those to which it is nothing special."""
    for rows in parts:
        segment.write(Change(rows, NO_ORDINALS, 0, 0))
    segment.write(Change(Rows.none(segment.dimension), NO_ORDINALS, sequence, log_offset))
