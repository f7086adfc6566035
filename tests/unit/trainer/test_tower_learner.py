"""What people want in many states at once."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.trainer import tower_learner
from headrace.trainer.learner import Learner
from headrace.trainer.sequences import Grown, pairs_of, windows_of
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.tower_learner import pair_wants


def _person(length: int, rng: np.random.Generator) -> Grown:
    codes, times = np.ones(length, np.uint8), np.cumsum(rng.integers(1, 10**9, length))
    return Grown(0, rng.integers(0, 30, length).astype(np.uint32), codes, times, codes)


def test_states_read_in_parts_want_what_they_want_alone(
    settings: TrainerSettings, shop: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tower_learner, "_WINDOWS_AT_ONCE", 3)
    learner, rng = Learner(settings), np.random.default_rng(7)
    learner.learn_products(shop.products())
    learner.learn(shop.visits(0, 40), 0)
    windows = windows_of([_person(length, rng) for length in (5, 1, 4, 2, 6, 3, 6, 1, 2)], settings.max_length)
    pairs = pairs_of(windows)
    pairs = pairs.at(rng.permutation(len(pairs)))
    wants = pair_wants(learner.towers.user, windows, pairs, learner.item_vectors)
    for number in range(len(pairs)):
        one = pairs.at(np.array([number]))
        np.testing.assert_allclose(
            pair_wants(learner.towers.user, windows, one, learner.item_vectors)[0], wants[number], rtol=1e-4, atol=1e-4
        )


def test_no_states_want_nothing(settings: TrainerSettings) -> None:
    learner = Learner(settings)
    windows = windows_of([_person(2, np.random.default_rng(7))], settings.max_length)
    nobody = pairs_of(windows).at(np.empty(0, np.int64))
    assert pair_wants(learner.towers.user, windows, nobody, learner.item_vectors).shape == (0, settings.dimension)
