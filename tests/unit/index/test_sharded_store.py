"""A store that keeps one shard, and one that takes over what a replica holds."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from headrace.index.batch import Batch
from headrace.index.flat_segment import FlatSegment
from headrace.index.rolling_hash import MARK_EVERY
from headrace.index.snapshot import Snapshots
from headrace.index.space import Space
from headrace.index.store import Store
from headrace.runtime.errors import FailedPreconditionError, UnavailableError
from headrace.runtime.shards import WHOLE, Shard

D, ITEMS = 4, 300


def batch(first: int, rows: int = 500) -> Batch:
    rng = np.random.default_rng(first)
    tombstones = rng.random(rows) < 0.1
    vectors = rng.standard_normal((rows, D)).astype(np.float32)
    vectors[tombstones] = 0
    return Batch("s", first, rng.integers(0, ITEMS, rows).astype(np.uint32), vectors, tombstones, first * 10)


def store_in(folder: Path, shard: Shard = WHOLE) -> Store:
    return Store(folder, FlatSegment, wal_file_bytes=50_000, shard=shard)


def killed(store: Store) -> None:
    """Lets go of the folder as a SIGKILL would: no snapshot, nothing flushed."""
    store._lock.close()


async def filled(store: Store, until: int) -> Store:
    await store.create("s", D)
    for first in range(store.space("s").applied_sequence + 1, until + 1, 500):
        await store.apply(batch(first))
    return store


async def copy_of(store: Store) -> Space:
    """What a replica would be sent."""
    with ExitStack() as pins:
        view, rolling_hash = await store.pinned(store.space("s"), pins)
        segment = FlatSegment(D)
        segment.fill(list(view.chunks()), view.sequence, view.log_offset)
    return Space("s", D, segment, rolling_hash)


async def test_shards_together_hold_what_one_index_holds_with_the_same_sequences(tmp_path: Path) -> None:
    whole = await filled(store_in(tmp_path / "whole"), 5_000)
    shards = [await filled(store_in(tmp_path / str(number), Shard(number, 3)), 5_000) for number in range(3)]
    _, rows = whole.space("s").all_rows()
    parts = [store.space("s").all_rows()[1] for store in shards]
    for number, part in enumerate(parts):
        assert Shard(number, 3).owns(part.ordinals).all()
    together = sorted((o, s) for part in parts for o, s in zip(part.ordinals, part.sequences, strict=True))
    assert together == sorted(zip(rows.ordinals, rows.sequences, strict=True))
    assert {store.space("s").applied_sequence for store in shards} == {5_000}
    for store in (whole, *shards):
        await store.close()


@pytest.mark.parametrize("shard", [WHOLE, Shard(1, 2)])
@pytest.mark.parametrize("has_snapshot", [False, True])
async def test_rows_and_hashes_of_a_shard_survive_a_kill(tmp_path: Path, shard: Shard, has_snapshot: bool) -> None:
    store = await filled(store_in(tmp_path, shard), 6_000)
    if has_snapshot:
        await store.snapshot()
    await filled(store, 9_000)
    digest, rolling_hash = store.space("s").digest(), store.space("s").rolling_hash
    assert [mark.sequence for mark in rolling_hash.marks] == [MARK_EVERY, 2 * MARK_EVERY]
    killed(store)
    again = store_in(tmp_path, shard)
    assert again.space("s").digest() == digest
    assert again.space("s").rolling_hash == rolling_hash
    await again.close()
    # and a clean stop
    last = store_in(tmp_path, shard)
    assert last.space("s").rolling_hash == rolling_hash
    await last.close()


async def test_a_batch_without_a_row_of_the_shard_moves_its_sequence(tmp_path: Path) -> None:
    shard = Shard(0, 2)
    store = store_in(tmp_path, shard)
    await store.create("s", D)
    foreign = np.flatnonzero(~shard.owns(np.arange(100, dtype=np.uint32))).astype(np.uint32)[:10]
    ones, none = np.ones((10, D), np.float32), np.zeros(10, np.bool_)
    applied = await store.apply(Batch("s", 1, foreign, ones, none, 3))
    assert (applied.sequence, applied.log_offset, applied.gap) == (10, 3, False)
    assert (await store.apply(Batch("s", 12, foreign, ones, none, 4))).gap
    killed(store)
    again = store_in(tmp_path, shard)
    assert again.space("s").applied_sequence == 10
    assert len(again.space("s").segment) == 0
    await again.close()


async def test_a_directory_of_another_shard_is_refused(tmp_path: Path) -> None:
    await store_in(tmp_path, Shard(0, 2)).close()
    with pytest.raises(FailedPreconditionError, match="holds shard 0/2 and cannot serve as shard 1/2"):
        store_in(tmp_path, Shard(1, 2))


async def test_a_directory_of_before_there_were_shards_holds_all_items(tmp_path: Path) -> None:
    await store_in(tmp_path).close()
    (tmp_path / "shard").unlink()
    with pytest.raises(FailedPreconditionError, match="holds shard 0/1"):
        store_in(tmp_path, Shard(0, 2))
    await store_in(tmp_path).close()


async def test_an_adopted_space_is_that_of_the_replica_and_goes_on_from_there(tmp_path: Path) -> None:
    ahead = await filled(store_in(tmp_path / "ahead"), 5_000)
    behind = await filled(store_in(tmp_path / "behind"), 1_000)
    assert await behind.adopt(await copy_of(ahead))
    for store in (ahead, behind):
        await filled(store, 9_000)
    assert behind.space("s").digest() == ahead.space("s").digest()
    assert behind.space("s").rolling_hash == ahead.space("s").rolling_hash
    killed(behind)
    again = store_in(tmp_path / "behind")
    assert again.space("s").digest() == ahead.space("s").digest()
    assert again.space("s").rolling_hash == ahead.space("s").rolling_hash
    for store in (ahead, again):
        await store.close()


async def test_a_replica_that_is_not_further_is_not_adopted(tmp_path: Path) -> None:
    behind = await filled(store_in(tmp_path / "behind"), 1_000)
    ahead = await filled(store_in(tmp_path / "ahead"), 2_000)
    before = ahead.space("s").digest()
    assert not await ahead.adopt(await copy_of(behind))
    assert ahead.space("s").digest() == before
    for store in (ahead, behind):
        await store.close()


async def test_an_adoption_that_breaks_off_leaves_the_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = await filled(store_in(tmp_path / "ahead"), 5_000)
    behind = await filled(store_in(tmp_path / "behind"), 1_000)
    before = behind.space("s").digest()

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Snapshots, "write", full_disk)
        with pytest.raises(UnavailableError, match="no space left"):
            await behind.adopt(await copy_of(ahead))
    assert behind.space("s").digest() == before
    killed(behind)
    again = store_in(tmp_path / "behind")
    assert again.space("s").digest() == before
    # and the next one succeeds
    assert await again.adopt(await copy_of(ahead))
    assert again.space("s").digest() == ahead.space("s").digest()
    for store in (ahead, again):
        await store.close()


async def test_whoever_watches_a_space_sees_what_was_adopted(tmp_path: Path) -> None:
    ahead = await filled(store_in(tmp_path / "ahead"), 5_000)
    behind = await filled(store_in(tmp_path / "behind"), 1_000)
    with behind.space("s").watched() as watcher:
        await behind.adopt(await copy_of(ahead))
        changed = await watcher.take()
    assert (changed.sequence, changed.log_offset) == (5_000, 4_501 * 10)
    assert set(behind.space("s").all_rows()[1].ordinals) <= set(changed.ordinals)
    for store in (ahead, behind):
        await store.close()
