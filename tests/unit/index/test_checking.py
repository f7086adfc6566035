"""A share of the queries is answered again, and what share of the truth the first answers had is told."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from headrace.index.flat_segment import FlatSegment
from headrace.index.rows import NO_ORDINALS, U8, U32, Change, Found, Rows
from headrace.index.searching import Query, Searcher


class Forgetful(FlatSegment):
    """Says what share of the truth it has."""

    kind = "forgetful"

    def recall(self, queries: np.ndarray, k: int, allow: U8 | None = None, deny: U32 = NO_ORDINALS) -> float:
        return 0.75

    check = recall


def filled(segment: FlatSegment) -> FlatSegment:
    numbers = np.arange(50)
    rows = Rows(numbers.astype(np.uint32), np.eye(50, 8, dtype=np.float32) + 1, numbers, numbers)
    segment.write(Change(rows, NO_ORDINALS, 1, 1))
    return segment


async def asked(segment: FlatSegment, times: int, share: float) -> tuple[int, float]:
    searcher = Searcher(threads=1, limit=4, check_share=share)
    query = Query(np.ones((1, 8), np.float32), None, 5, None, NO_ORDINALS)
    for _ in range(times):
        await searcher.nearest(segment, query)
        await asyncio.sleep(0.002)
    searcher.close()
    await asyncio.sleep(0.01)  # what the threads had finished is noted by the loop
    return searcher.checker.checked, searcher.checker.recall


async def test_one_in_ten_is_checked_and_the_recall_told() -> None:
    assert await asked(filled(Forgetful(8)), 40, 0.1) == (4, 0.75)


async def test_segments_that_score_everything_are_not_checked() -> None:
    assert await asked(filled(FlatSegment(8)), 20, 1.0) == (0, 1.0)


async def test_nothing_is_checked_when_the_share_is_none() -> None:
    assert await asked(filled(Forgetful(8)), 20, 0.0) == (0, 1.0)


def test_an_answer_that_misses_some_of_the_best_is_told_apart() -> None:
    pytest.importorskip("headrace.index._scan")
    from headrace.index.compact_segment import CompactSegment, shared

    segment = filled(CompactSegment(8))
    queries = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    assert segment.recall(queries, 10) == 1.0
    truth = segment.search(queries, 10)
    half = Found(
        truth.counts_Q,
        np.concatenate([truth.ordinals_QK[:, :5], np.full((3, 5), 77, np.uint32)], axis=1),
        np.concatenate([truth.scores_QK[:, :5], np.full((3, 5), -9.0, np.float32)], axis=1),
        1,
    )
    assert shared(half, truth) == 0.5
