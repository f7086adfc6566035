"""Rows in cells: enough is found, filters are exact, cells split and give their blocks back."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.index.devices import compiled_kernels
from headrace.index.rows import NO_ORDINALS, Change, Rows
from headrace.index.self_check import nearest_by_numpy

pytestmark = pytest.mark.skipif(not compiled_kernels(), reason="the scan is not compiled here")

D = 16


def clustered(rows: int, seed: int, groups: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, D))
    vectors = centres[rng.integers(0, groups, rows)] + 0.3 * rng.standard_normal((rows, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def segment_of(vectors: np.ndarray, **settings: object):  # type: ignore[no-untyped-def]
    from headrace.index.cell_segment import CellSegment

    segment = CellSegment(D, **{"cells_from": 1_000, "recall_goal": 0.95, **settings})  # type: ignore[arg-type]
    write(segment, np.arange(len(vectors)), vectors)
    return segment


def write(segment, ordinals: np.ndarray, vectors: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    sequence = segment.sequence + 1
    numbers = np.full(len(ordinals), sequence)
    rows = Rows(ordinals.astype(np.uint32), vectors, numbers, numbers)
    segment.write(Change(rows, NO_ORDINALS, sequence, sequence))


def recall_of(segment, vectors: np.ndarray, queries: np.ndarray, k: int) -> float:  # type: ignore[no-untyped-def]
    truth = nearest_by_numpy(queries, np.arange(len(vectors), dtype=np.uint32), vectors, k).ordinals_QK
    found = segment.search(queries, k).ordinals_QK
    return float(np.mean([len(np.intersect1d(one, other)) / k for one, other in zip(found, truth, strict=True)]))


def test_few_rows_are_scanned_whole() -> None:
    vectors = clustered(999, 1)
    segment = segment_of(vectors)
    assert (segment.kind, segment.probes) == ("compact-cpu", 0)
    assert recall_of(segment, vectors, vectors[:50], 20) == 1.0


def test_of_many_rows_few_cells_find_what_they_are_to_find() -> None:
    vectors = clustered(8_000, 1)
    segment = segment_of(vectors)
    assert segment.kind == "cells-cpu"
    assert 0 < segment.probes <= 45 / 4
    assert recall_of(segment, vectors, clustered(8_200, 1)[8_000:], 100) > 0.9


def test_a_filter_makes_it_exact() -> None:
    vectors = clustered(4_000, 2)
    segment = segment_of(vectors, recall_goal=0.6)
    allowed = np.random.default_rng(3).random(4_000) < 0.3
    found = segment.search(vectors[:20], 50, np.packbits(allowed, bitorder="little"))
    kept = np.flatnonzero(allowed)
    truth = nearest_by_numpy(vectors[:20], kept.astype(np.uint32), vectors[kept], 50)
    np.testing.assert_array_equal(found.ordinals_QK, truth.ordinals_QK)


def test_more_is_wanted_than_the_cells_hold() -> None:
    vectors = clustered(2_000, 4)
    segment = segment_of(vectors, recall_goal=0.6)
    assert segment.search(vectors[:2], 2_000).counts_Q.tolist() == [2_000, 2_000]


def test_more_cells_are_looked_into_when_too_little_is_found() -> None:
    vectors = clustered(8_000, 5)
    segment = segment_of(vectors, recall_goal=0.9)
    segment._probes = 1  # as if the queries had become others
    rng = np.random.default_rng(6)
    strangers = rng.standard_normal((400, D)).astype(np.float32)
    for query in strangers:
        segment.check(query[None], 50)
    assert segment.probes != 1
    assert recall_of(segment, vectors, strangers[:50], 50) > 0.85


def test_vectors_without_clusters_are_scanned_whole() -> None:
    vectors = np.random.default_rng(12).standard_normal((3_000, D)).astype(np.float32)
    segment = segment_of(vectors, recall_goal=0.99)
    assert (segment.kind, segment.probes) == ("compact-cpu", 0)
    assert recall_of(segment, vectors, vectors[:50], 20) == 1.0


def test_vectors_that_all_move_to_one_place_are_split_again() -> None:
    vectors = clustered(4_000, 7, groups=60)
    segment = segment_of(vectors)
    moved = clustered(4_000, 8, groups=1)
    for start in range(0, 4_000, 250):
        write(segment, np.arange(start, start + 250), moved[start : start + 250])
    for _ in range(5):  # some cells a change
        write(segment, np.arange(10), moved[:10])
    cells = segment._places.cells_of(np.flatnonzero(segment._table.view.live_N))
    assert np.bincount(cells).max() <= 4 * 4_000 / 32 + 100
    assert recall_of(segment, moved, moved[:50], 20) > 0.8


def test_rewriting_everything_ten_times_takes_a_tenth_more_memory_at_most() -> None:
    vectors = clustered(6_000, 9)
    segment = segment_of(vectors)
    rng = np.random.default_rng(10)
    blocks = len(segment._places._cell_of_block)
    for round_number in range(10):
        moved = clustered(6_000, 20 + round_number)
        for part in np.array_split(rng.permutation(6_000), 60):
            write(segment, part, moved[part])
    # what a change needs while the rows of before are shown still is there too
    assert len(segment._places._cell_of_block) <= 1.1 * blocks + 100 // 16 * 4


def test_a_segment_that_is_filled_makes_its_cells_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.index import cell_segment

    made: list[int] = []
    once = cell_segment.centres_of
    monkeypatch.setattr(cell_segment, "centres_of", lambda *given: (made.append(given[1]), once(*given))[1])
    whole = segment_of(clustered(5_000, 11))
    made.clear()
    restored = cell_segment.CellSegment(D, cells_from=1_000, recall_goal=0.95)
    with whole.view() as view:
        restored.fill(view.chunks(), view.sequence, view.log_offset)
    assert made == [round(5_000**0.5 / 2)]
    assert (len(restored), restored.sequence, restored.kind) == (5_000, 1, "cells-cpu")
