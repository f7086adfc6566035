"""What a step learns to tell apart from what followed."""

from __future__ import annotations

import numpy as np

from headrace.trainer.negatives import NegativeSampler


def test_only_candidates_are_drawn_evenly() -> None:
    found = NegativeSampler(np.array([3, 5]), np.zeros(10), 100, 0).draw(np.random.default_rng(1))
    assert set(found.ordinals_S.tolist()) == {3, 5}


def test_popular_items_are_drawn_by_their_counts() -> None:
    counts = np.array([0.0, 1.0, 3.0])
    found = NegativeSampler(np.array([0, 1, 2]), counts, 1, 4_000).draw(np.random.default_rng(1))
    shares = np.bincount(found.ordinals_S[1:], minlength=3) / 4_000
    np.testing.assert_allclose(shares, [0.0, 0.25, 0.75], atol=0.03)


def test_the_correction_is_the_log_of_the_expected_count() -> None:
    found = NegativeSampler(np.array([0, 1]), np.array([1.0, 3.0]), 10, 20).draw(np.random.default_rng(1))
    np.testing.assert_allclose(np.exp(found.log_q_N), [5 + 5, 5 + 15], rtol=1e-5)
