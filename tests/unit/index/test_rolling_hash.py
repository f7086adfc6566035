"""Rolling hashes: equal for the same rows in the same order, however they came."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headrace.index.batch import Batch
from headrace.index.log_record import decoded, encoded
from headrace.index.rolling_hash import MARK_EVERY, Mark, RollingHash, first_difference
from headrace.runtime.shards import WHOLE, Shard

DIMENSION = 4


def rows(count: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    tombstones = rng.random(count) < 0.1
    vectors = rng.standard_normal((count, DIMENSION)).astype(np.float32)
    vectors[tombstones] = 0
    return Batch("s", 1, rng.integers(0, 500, count).astype(np.uint32), vectors, tombstones, 7)


def cut(batch: Batch, sequences: list[int]) -> list[Batch]:
    """The batch in pieces that end at these sequences."""
    pieces, start = [], 0
    for end in [*sequences, len(batch)]:
        rows_of = slice(start, end)
        pieces.append(
            Batch("s", start + 1, batch.ordinals[rows_of], batch.vectors_ND[rows_of], batch.tombstones_N[rows_of], 7)
        )
        start = end
    return pieces


def hashed(batches: list[Batch], shard: Shard = WHOLE) -> RollingHash:
    found = RollingHash()
    for batch in batches:
        found = found.after(batch.owned_by(shard))
    return found


@pytest.mark.parametrize("shard", [WHOLE, Shard(0, 2), Shard(2, 3)])
def test_a_hash_does_not_depend_on_how_rows_were_batched(shard: Shard) -> None:
    whole = rows(3 * MARK_EVERY + 100)
    rng = np.random.default_rng(1)
    for _ in range(20):
        cuts = sorted(rng.integers(0, len(whole), 9).tolist())
        assert hashed(cut(whole, cuts), shard) == hashed([whole], shard)
    assert [mark.sequence for mark in hashed([whole], shard).marks] == [MARK_EVERY, 2 * MARK_EVERY, 3 * MARK_EVERY]


def test_a_mark_is_of_the_rows_up_to_it() -> None:
    whole = rows(2 * MARK_EVERY)
    [until_first, _] = cut(whole, [MARK_EVERY])
    assert hashed([whole]).marks[0] == hashed([until_first]).marks[0]


@pytest.mark.parametrize("change", ["vector", "ordinal", "tombstone", "order"])
def test_any_other_row_gives_another_hash(change: str) -> None:
    whole = rows(MARK_EVERY)
    ordinals, vectors, tombstones = whole.ordinals.copy(), whole.vectors_ND.copy(), whole.tombstones_N.copy()
    if change == "vector":
        vectors[5, 1] = np.nextafter(vectors[5, 1], np.float32(9))
    elif change == "ordinal":
        ordinals[5] += 1
    elif change == "tombstone":
        tombstones[5] = ~tombstones[5]
    else:
        ordinals[[5, 6]], vectors[[5, 6]] = ordinals[[6, 5]], vectors[[6, 5]]
    other = replace(whole, ordinals=ordinals, vectors_ND=vectors, tombstones_N=tombstones)
    assert hashed([other]).marks != hashed([whole]).marks


def test_only_the_newest_marks_are_kept() -> None:
    many = [replace(rows(1), first_sequence=at * MARK_EVERY + 1) for at in range(1)]
    found = hashed(many)
    for at in range(1, 101):
        found = found.after(replace(rows(MARK_EVERY), first_sequence=(at - 1) * MARK_EVERY + 2))
    assert [mark.sequence // MARK_EVERY for mark in found.marks] == list(range(37, 101))


def test_the_first_sequence_that_differs_is_told() -> None:
    ours = tuple(Mark(at, f"{at}") for at in (1, 2, 3, 4))
    theirs = (Mark(2, "2"), Mark(3, "other"), Mark(4, "other"), Mark(5, "5"))
    assert first_difference(ours, theirs) == 3
    assert first_difference(ours, (Mark(9, "9"),)) is None
    assert first_difference(ours, ours) is None


def test_what_was_taken_unhashed_is_never_compared() -> None:
    unhashed = RollingHash(5, None).after(replace(rows(MARK_EVERY), first_sequence=6))
    assert unhashed == RollingHash(5 + MARK_EVERY, None)


@pytest.mark.parametrize("shard", [WHOLE, Shard(1, 3)])
def test_a_part_of_a_batch_is_read_as_it_was_logged(shard: Shard) -> None:
    kept = rows(50).owned_by(shard)
    read = decoded(encoded(kept))
    assert isinstance(read, Batch)
    assert (read.first_sequence, read.last_sequence) == (1, 50)
    assert read.places.tolist() == kept.places.tolist()
    assert read.ordinals.tolist() == kept.ordinals.tolist()
    assert read.vectors_ND.tolist() == kept.vectors_ND.tolist()


def test_the_rest_of_a_part_keeps_its_sequences() -> None:
    part = rows(50).owned_by(Shard(0, 2))
    rest = part.after(20)
    wanted = [1 + place for place in part.places.tolist() if 1 + place > 20]
    assert [rest.first_sequence + place for place in rest.places.tolist()] == wanted
    assert (rest.first_sequence, rest.last_sequence) == (21, 50)
