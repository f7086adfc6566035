"""Rows of several shards come in the order of the log, and never beyond what all have told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import numpy as np

from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.model.history import History
from headrace.trainer.row_shards import RowReplicas, RowShards
from headrace.trainer.rows import RowPart


class Told:
    """What a shard's process tells: parts of offsets, and up to where it has folded."""

    def __init__(self, name: str, parts: Sequence[Sequence[int]], folded: int) -> None:
        self._name = name
        self._parts = parts
        self._folded = folded

    async def parts(self, after: int, until: int) -> AsyncIterator[RowPart]:
        for offsets in self._parts:
            yield _part(self._name, offsets, offsets[-1] - 1)
        yield _part(self._name, [], self._folded)


def _part(name: str, offsets: Sequence[int], complete_offset: int) -> RowPart:
    """Groups of one row each."""
    count = len(offsets)
    history = History(np.empty(0, np.uint32), np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.uint8))
    return RowPart(
        np.array(offsets, np.uint32),
        np.zeros((count, len(CANDIDATE_FEATURES)), np.float32),
        np.zeros(count, np.uint8),
        np.ones(count, np.float32),
        np.ones(count, np.int64),
        np.array(offsets, np.int64),
        np.array(offsets, np.int64),
        (history,) * count,
        tuple(f"{name}{offset}" for offset in offsets),
        complete_offset,
    )


async def _merged(*shards: Told) -> tuple[list[str], int]:
    keys: list[str] = []
    complete_offset = 0
    async for part in RowShards([RowReplicas([shard]) for shard in shards]).parts(0, 100):
        assert all(offset > complete_offset for offset in part.offsets_G.tolist())
        complete_offset = part.complete_offset
        assert all(offset <= complete_offset for offset in part.offsets_G.tolist())
        assert part.ordinals_R.tolist() == part.offsets_G.tolist()
        keys += part.user_keys
    return keys, complete_offset


async def test_groups_go_by_offset_and_then_by_shard_however_they_are_cut() -> None:
    expected = (["a1", "b2", "a4", "a5", "b5", "b5", "a9", "b12"], 20)
    first, second = [[1, 4, 5, 9]], [[2, 5, 5, 12]]
    assert await _merged(Told("a", first, 20), Told("b", second, 20)) == expected
    assert await _merged(Told("a", [[1], [4, 5], [9]], 20), Told("b", [[2, 5], [5], [12]], 20)) == expected


async def test_nothing_is_told_beyond_what_the_shard_that_is_behind_has_folded() -> None:
    ahead, behind = Told("a", [[1, 4], [9, 30]], 40), Told("b", [[2]], 7)
    assert await _merged(ahead, behind) == (["a1", "b2", "a4"], 7)


async def test_a_shard_without_groups_holds_nobody_up() -> None:
    assert await _merged(Told("a", [[1], [4]], 8), Told("b", [], 8)) == (["a1", "a4"], 8)
