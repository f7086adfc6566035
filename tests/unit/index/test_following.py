from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from headrace.index.flat_segment import FlatSegment
from headrace.index.following import Part, followed
from headrace.index.rows import Change, Rows
from headrace.index.space import Space
from headrace.index.watcher import Watcher
from headrace.runtime.errors import NotFoundError, UnavailableError


@pytest.fixture
def readers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def apply(space: Space, ordinals: list[int], value: float, sequence: int, deletes: tuple[int, ...] = ()) -> None:
    numbers = np.arange(sequence - len(ordinals) + 1, sequence + 1)
    vectors = np.full((len(ordinals), space.dimension), value, np.float32)
    rows = Rows(np.array(ordinals, np.uint32), vectors, numbers, numbers)
    gone = np.array(deletes, np.uint32)
    space.apply(Change(rows, gone, sequence, sequence * 10))
    space.announce(np.concatenate([rows.ordinals, gone]))


async def snapshot_end(parts: object) -> Part:
    async for part in parts:  # type: ignore[attr-defined]
        if part.snapshot_end:
            return part  # type: ignore[no-any-return]
    raise AssertionError("no end")


async def test_a_slow_follower_gets_the_newest_value_of_each_item_once(readers: ThreadPoolExecutor) -> None:
    space = Space("a", 2, FlatSegment(2))
    parts = followed(space, readers, 60)
    await snapshot_end(parts)
    for sequence in range(1, 2001):
        apply(space, [sequence % 5], sequence, sequence)
    apply(space, [], 0, 2001, deletes=(3,))
    part = await anext(parts)
    assert part.ordinals.tolist() == [1, 2, 4, 0, 3]
    assert part.vectors_ND[:, 0].tolist() == [1996, 1997, 1999, 2000, 0]
    assert part.tombstones_N.tolist() == [False, False, False, False, True]
    assert (part.sequence, part.log_offset) == (2001, 20010)
    await parts.aclose()


async def test_parts_are_small_and_only_the_last_brings_the_new_sequence(readers: ThreadPoolExecutor) -> None:
    space = Space("a", 4096, FlatSegment(4096))
    apply(space, list(range(200)), 1.0, 200)
    parts = followed(space, readers, 60)
    sizes = []
    async for part in parts:
        sizes.append(part.vectors_ND.nbytes)
        assert part.snapshot
        if part.snapshot_end:
            break
    assert max(sizes) <= 2 << 20
    assert sum(sizes) == 200 * 4096 * 4
    apply(space, list(range(200)), 2.0, 400)
    changes = [await anext(parts) for _ in range(2)]
    assert [part.sequence for part in changes] == [200, 400]
    assert sum(len(part.ordinals) for part in changes) == 200
    await parts.aclose()


async def test_a_snapshot_is_of_one_sequence_while_the_space_changes(readers: ThreadPoolExecutor) -> None:
    space = Space("a", 2, FlatSegment(2))
    apply(space, list(range(5000)), 1.0, 5000)
    parts = followed(space, readers, 60)
    values = [(await anext(parts)).vectors_ND]
    apply(space, list(range(5000)), 2.0, 10_000)
    while not (part := await anext(parts)).snapshot_end:
        assert part.sequence == 5000
        values.append(part.vectors_ND)
    assert np.unique(np.concatenate(values)).tolist() == [1.0]
    assert np.unique((await anext(parts)).vectors_ND).tolist() == [2.0]
    await parts.aclose()


async def test_a_follower_that_stalls_over_its_snapshot_is_let_go(readers: ThreadPoolExecutor) -> None:
    space = Space("a", 2, FlatSegment(2))
    apply(space, list(range(5000)), 1.0, 5000)
    parts = followed(space, readers, snapshot_limit_s=0.01)
    await anext(parts)
    before = space.segment.memory_bytes()
    while space.segment._table._pins:  # type: ignore[attr-defined]  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    with pytest.raises(UnavailableError, match=r"not taken within 0\.01 s"):
        await anext(parts)
    for sequence in range(5001, 20_000, 1000):
        apply(space, list(range(1000)), 2.0, sequence + 999)
    # what a change needs while the rows of before are shown still is there too
    assert space.segment.memory_bytes() < 1.5 * before


async def test_a_watcher_of_a_space_that_ended_is_told() -> None:
    space = Space("a", 2, FlatSegment(2))
    space.end()
    with space.watched() as watcher, pytest.raises(NotFoundError, match="was dropped"):
        await watcher.take()
    with pytest.raises(NotFoundError, match="was dropped"):
        await space.reached(1, 1.0)


async def test_a_watcher_keeps_as_much_as_there_are_items_however_much_changes() -> None:
    watcher = Watcher()
    for sequence in range(1, 5000):
        watcher.note(np.arange(100, dtype=np.uint32), sequence, sequence)
    assert sum(len(piece) for piece in watcher._pieces) <= 100 * 257
    changed = await watcher.take()
    assert (changed.ordinals.tolist(), changed.sequence) == (list(range(100)), 4999)
