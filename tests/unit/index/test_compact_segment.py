"""The int8 scan leaves out only what cannot be among the best, whatever the vectors are like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.index.devices import compiled_kernels
from headrace.index.rows import F32, NO_ORDINALS, Change, Rows

KERNELS = compiled_kernels()
pytestmark = pytest.mark.skipif(not KERNELS, reason="the scan is not compiled here")


def segment_of(vectors: F32, kernels: str) -> object:
    from headrace.index.compact_segment import CompactSegment

    segment = CompactSegment(vectors.shape[1], kernels)
    numbers = np.arange(len(vectors))
    segment.write(Change(Rows(numbers.astype(np.uint32), vectors, numbers, numbers), NO_ORDINALS, 1, 1))
    return segment


def assert_exact(vectors: F32, queries: F32, k: int) -> None:
    """No row that was left out is better than one that was found, but for what float32 rounds."""
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    rounding = 1e-6 * np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)[None, :]
    for kernels in KERNELS:
        found = segment_of(vectors, kernels).search(queries, k)
        wanted = min(k, len(vectors))
        for query, ordinals in enumerate(found.ordinals_QK[:, :wanted]):
            assert len(set(ordinals.tolist())) == wanted
            left_out = np.setdiff1d(np.arange(len(vectors)), ordinals)
            certain = (exact + rounding)[query, ordinals].min()
            assert ((exact - rounding)[query, left_out] <= certain).all(), kernels
            assert (np.diff(found.scores_QK[query, :wanted]) <= 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 130),
    st.integers(1, 700),
    st.integers(1, 50),
    st.integers(1, 11),
    st.sampled_from(["even", "norms apart", "one large number", "tiny"]),
    st.integers(0, 1_000_000),
)
def test_the_best_are_found_among_any_vectors(
    dimension: int, rows: int, k: int, count: int, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rows, dimension))
    if kind == "norms apart":
        vectors *= 10.0 ** rng.uniform(-3, 3, (rows, 1))
    if kind == "one large number":
        vectors[:, 0] *= 1000
    if kind == "tiny":
        vectors *= 1e-39
    assert_exact(vectors.astype(np.float32), rng.standard_normal((count, dimension)).astype(np.float32), k)


def test_the_best_are_found_among_rows_that_codes_cannot_tell_apart() -> None:
    rng = np.random.default_rng(5)
    vectors = (np.ones((5_000, 24)) + rng.normal(0, 1e-4, (5_000, 24))).astype(np.float32)
    assert_exact(vectors, np.ones((2, 24), np.float32), 10)


def test_many_queries_find_what_each_finds_alone() -> None:
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((9_000, 20)).astype(np.float32)
    queries = rng.standard_normal((37, 20)).astype(np.float32)
    for kernels in KERNELS:
        segment = segment_of(vectors, kernels)
        together = segment.search(queries, 15)
        alone = [segment.search(query[None], 15) for query in queries]
        np.testing.assert_array_equal(together.ordinals_QK, np.concatenate([found.ordinals_QK for found in alone]))
        np.testing.assert_array_equal(together.scores_QK, np.concatenate([found.scores_QK for found in alone]))


def test_memory_that_does_not_fit_is_refused() -> None:
    from headrace.index import _scan

    codes, vectors = np.zeros(_scan.block_bytes(4), np.uint8), np.zeros((1, 4), np.float32)
    with pytest.raises(ValueError, match="a row is beyond the memory"):
        _scan.write(codes, np.array([16]), vectors, 4)
    with pytest.raises(ValueError, match="one vector a row is needed"):
        _scan.write(codes, np.array([0, 1]), vectors, 4)
    ordinals, live = np.zeros(17, np.uint32), np.zeros(3, np.uint8)
    found, scores, counts = np.zeros((1, 2), np.uint32), np.zeros((1, 2), np.float32), np.zeros(1, np.uint32)
    for given_codes, queries, reason in (
        (codes, vectors, "codes, vectors and live bits do not fit the rows"),
        (np.tile(codes, 2), np.zeros((2, 4), np.float32), "queries and results do not fit each other"),
    ):
        many = np.zeros((17, 4), np.float32)
        with pytest.raises(ValueError, match=reason):
            _scan.search(KERNELS[0], given_codes, many, ordinals, live, None, queries, 4, 2, found, scores, counts)
    with pytest.raises(ValueError, match="no kernels called abacus"):
        _scan.search("abacus", codes, vectors, ordinals[:1], live[:1], None, vectors, 4, 2, found, scores, counts)
