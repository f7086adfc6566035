"""Answers of several shards become that of one index."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.ranker.nearest import Nearest, merged
from headrace.runtime.shards import shard_of


def nearest(ordinals: np.ndarray, all_scores: np.ndarray, k: int, sequence: int = 1) -> Nearest:
    """The k best of each query by score, then ordinal: looked for the plainest way."""
    counts = np.full(len(all_scores), min(k, len(ordinals)), np.uint32)
    best_ordinals = np.full((len(all_scores), k), 0xFFFFFFFF, np.uint32)
    best_scores = np.full((len(all_scores), k), -np.inf, np.float32)
    for query, scores in enumerate(all_scores):
        best = sorted(zip(-scores, ordinals, strict=True))[:k]
        for place, (score, ordinal) in enumerate(best):
            best_ordinals[query, place], best_scores[query, place] = ordinal, -score
    return Nearest(counts, best_ordinals, best_scores, "s", sequence)


@pytest.mark.parametrize("seed", range(40))
def test_shards_merged_are_one_flat_list_with_ties_by_ordinal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    items, queries, k = int(rng.integers(1, 60)), int(rng.integers(1, 5)), int(rng.integers(1, 40))
    shards = int(rng.integers(1, 5))
    ordinals = rng.choice(1_000, items, replace=False).astype(np.uint32)
    # few values, so that ties are everywhere, on the boundary too
    all_scores = rng.integers(-3, 3, (queries, items)).astype(np.float32)
    owners = shard_of(ordinals, shards)
    parts = [nearest(ordinals[owners == one], all_scores[:, owners == one], k, one + 5) for one in range(shards)]
    whole, together = nearest(ordinals, all_scores, k), merged(parts)
    assert together.counts_Q.tolist() == whole.counts_Q.tolist()
    assert together.ordinals_QK.tolist() == whole.ordinals_QK.tolist()
    assert together.scores_QK.tolist() == whole.scores_QK.tolist()
    assert together.applied_sequence == 5
    assert [part.tolist() for part in together.end_to_end()] == [part.tolist() for part in whole.end_to_end()]
