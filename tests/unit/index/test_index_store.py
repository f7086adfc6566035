from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from headrace.index.batch import Batch
from headrace.index.flat_segment import FlatSegment
from headrace.index.log_record import Activate, Create, Drop, decoded, encoded
from headrace.index.store import Applied, Store
from headrace.index.write_ahead_log import WriteAheadLog
from headrace.runtime.errors import CorruptDataError, FailedPreconditionError, NotFoundError, UnavailableError

D = 2


def batch(first: int, items: dict[int, Sequence[float]], space: str = "a", deletes: tuple[int, ...] = ()) -> Batch:
    ordinals = [*items, *deletes]
    vectors = np.array([*items.values(), *([0, 0] for _ in deletes)], np.float32).reshape(len(ordinals), D)
    gone = np.array([False] * len(items) + [True] * len(deletes), np.bool_)
    return Batch(space, first, np.array(ordinals, np.uint32), vectors, gone, log_offset=first * 10)


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[Store]:
    store = Store(directory, FlatSegment, wal_file_bytes=2000)
    try:
        yield store
    finally:
        await store.close()


def killed(store: Store) -> None:
    """Lets go of the folder as a SIGKILL would: no snapshot, nothing flushed."""
    store._lock.close()


def contents(store: Store, space: str = "a") -> dict[int, list[float]]:
    _, rows = store.space(space).all_rows()
    return dict(zip(rows.ordinals.tolist(), rows.vectors_ND.tolist(), strict=True))


async def test_of_several_rows_for_one_item_the_last_counts(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.create("a", D)
        ordinals = np.array([1, 2, 1, 3, 2, 3], np.uint32)
        vectors = np.array([[1, 0], [2, 0], [0, 0], [3, 0], [2, 2], [3, 3]], np.float32)
        gone = np.array([False, False, True, False, False, False])
        assert await store.apply(Batch("a", 1, ordinals, vectors, gone, 5)) == Applied(6, 5, gap=False)
        assert contents(store) == {2: [2, 2], 3: [3, 3]}
        _, rows = store.space("a").all_rows()
        assert rows.sequences.tolist() == [5, 6]


async def test_what_was_applied_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path, FlatSegment)
    await store.create("a", D)
    await store.activate("a")
    await store.apply(batch(1, {1: [1, 0], 2: [2, 0]}))
    await store.apply(batch(3, {1: [5, 0]}, deletes=(2,)))
    killed(store)
    async with opened(tmp_path) as again:
        assert contents(again) == {1: [5, 0]}
        assert (again.active, again.space("").applied_sequence, again.space("").log_offset) == ("a", 4, 30)


async def test_a_restart_uses_the_snapshot_and_the_log_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path, FlatSegment)
    await store.create("a", D)
    await store.create("gone", D)
    for number in range(1, 20):
        await store.apply(batch(number, {number: [number, 1]}))
        if number in (5, 10, 15):
            await store.snapshot()
    await store.drop("gone")
    killed(store)
    assert len(list((tmp_path / "snapshots").iterdir())) == 2
    async with opened(tmp_path) as again:
        assert contents(again) == {number: [number, 1] for number in range(1, 20)}
        assert [space.name for space in again.spaces] == ["a"]


@pytest.mark.parametrize("damage", ["rows", "manifest", "manifest gone", "manifest not json", "rows gone"])
async def test_a_damaged_snapshot_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path, FlatSegment)
    await store.create("a", D)
    for number in range(1, 20):
        await store.apply(batch(number, {number: [number, 1]}))
        if number in (5, 10, 15):
            await store.snapshot()
    killed(store)
    newest = sorted((tmp_path / "snapshots").iterdir())[-1]
    spoil(newest, damage)
    with caplog.at_level(logging.ERROR):
        async with opened(tmp_path) as again:
            assert contents(again) == {number: [number, 1] for number in range(1, 20)}
    assert [record.getMessage() for record in caplog.records] == ["snapshot_skipped"]


def spoil(snapshot: Path, damage: str) -> None:
    path = snapshot / ("manifest.json" if damage.startswith("manifest") else "space-0.rows")
    if damage.endswith("gone"):
        path.unlink()
    elif damage.endswith("json"):
        path.write_bytes(b"{")
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


async def test_a_damaged_log_is_made_good_by_sending_again(tmp_path: Path) -> None:
    store = Store(tmp_path, FlatSegment)
    await store.create("a", D)
    batches = [batch(number, {number: [number, 1]}) for number in range(1, 10)]
    for one in batches:
        await store.apply(one)
    killed(store)
    [path] = (tmp_path / "wal").glob("*.wal")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    async with opened(tmp_path) as again:
        reached = again.space("a").applied_sequence
        assert 0 < reached < 9
        assert (await again.apply(batches[-1])).gap
        for one in batches[reached:]:
            await again.apply(one)
        assert contents(again) == {number: [number, 1] for number in range(1, 10)}


async def test_records_that_fit_no_space_are_skipped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = WriteAheadLog(tmp_path / "wal")
    list(log.recover(after=0))
    log.append(
        [
            encoded(batch(1, {1: [1, 0]}, space="never-made")),
            encoded(Activate("never-made")),
            b"\x09\x00",
            encoded(Create("a", D)),
            encoded(batch(7, {1: [1, 0]})),
            encoded(batch(1, {1: [1, 0]})),
        ]
    )
    log.close()
    with caplog.at_level(logging.WARNING):
        async with opened(tmp_path) as store:
            assert contents(store) == {1: [1, 0]}
    assert [vars(record)["record"] for record in caplog.records] == [1, 2, 3, 5]


async def test_a_space_made_anew_under_an_old_name_is_empty_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path, FlatSegment)
    await store.create("a", D)
    await store.apply(batch(1, {1: [1, 0]}))
    await store.drop("a")
    await store.create("a", D)
    await store.apply(batch(1, {2: [1, 0]}))
    killed(store)
    async with opened(tmp_path) as again:
        assert contents(again) == {2: [1, 0]}


async def test_batches_that_wait_together_are_each_planned_after_the_one_before(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.create("a", D)
        await store.create("b", D)
        waiting = [
            store.apply(batch(1, {1: [1, 0]})),
            store.apply(batch(1, {1: [9, 0]}, space="b")),
            store.apply(batch(1, {1: [7, 7]})),
            store.apply(batch(3, {1: [8, 8]})),
            store.apply(batch(2, {2: [2, 0]})),
        ]
        answers = await asyncio.gather(*waiting)
        assert [answer.gap for answer in answers] == [False, False, False, True, False]
        assert contents(store) == {1: [1, 0], 2: [2, 0]}
        assert contents(store, "b") == {1: [9, 0]}


async def test_a_batch_for_a_space_that_was_dropped_meanwhile_is_refused_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.create("a", D)
        await store.create("b", D)
        drop = asyncio.create_task(store.drop("b"))
        await asyncio.sleep(0)
        late, good = store.apply(batch(1, {1: [1, 0]}, space="b")), store.apply(batch(1, {1: [1, 0]}))
        await drop
        with pytest.raises(NotFoundError, match="no space 'b'"):
            await late
        assert (await good).sequence == 1


async def test_a_disk_that_refuses_loses_nothing_and_the_sender_may_try_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.create("a", D)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))
        try:
            with pytest.raises(UnavailableError):
                await store.apply(batch(1, {1: [1, 0]}))
            with pytest.raises(UnavailableError, match="snapshot not written"):
                await store.snapshot()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert store.unsnapshotted.size_bytes > 0
        assert contents(store) == {}
        assert (await store.apply(batch(1, {1: [1, 0]}))).sequence == 1
    async with opened(tmp_path) as again:
        assert contents(again) == {1: [1, 0]}


async def test_a_snapshot_frees_the_log_before_the_one_before_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.create("a", D)
        sizes = []
        for round_number in range(4):
            for number in range(round_number * 100 + 1, round_number * 100 + 101):
                await store.apply(batch(number, {number: [1, 1]}))
            await store.snapshot()
            sizes.append(sum(path.stat().st_size for path in (tmp_path / "wal").glob("*.wal")))
        assert sizes[-1] < 1.5 * sizes[0]
        assert store.unsnapshotted.size_bytes == 0


async def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(FailedPreconditionError, match="in use"):
            Store(tmp_path, FlatSegment)


@pytest.mark.parametrize("entry", [Create("a-b", 7), Activate("x"), Drop("y")])
def test_entries_come_back_from_their_bytes(entry: Create | Activate | Drop) -> None:
    assert decoded(encoded(entry)) == entry


@pytest.mark.parametrize("size", [0, 1, 5, 20, 40])
def test_bytes_that_are_no_entry_are_corrupt(size: int) -> None:
    with pytest.raises(CorruptDataError):
        decoded(encoded(batch(1, {1: [1, 2], 2: [3, 4]}))[:size])
