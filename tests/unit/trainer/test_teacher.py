"""Replayed sequences held to what the towers said before a slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.trainer.learner import Learner
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.teacher import divergence


def _learner(settings: TrainerSettings, shop: object, distillation: float) -> Learner:
    learner = Learner(settings.model_copy(update={"distillation": distillation}))
    learner.learn_products(shop.products())
    for number in range(3):
        learner.learn(shop.visits(number, 40), number)
    return learner


def test_nothing_is_apart_from_itself() -> None:
    scores = torch.tensor([[1.0, 2.0, -1.0]])
    assert float(divergence(torch.log_softmax(scores, dim=1), scores)) == pytest.approx(0.0, abs=1e-6)


def test_what_says_the_opposite_is_far() -> None:
    scores = torch.tensor([[4.0, -4.0]])
    assert float(divergence(torch.log_softmax(scores, dim=1), -scores)) == pytest.approx(8.0, abs=0.01)


def test_towers_held_to_a_teacher_stay_nearer_to_what_they_were(settings: TrainerSettings, shop: object) -> None:
    moves = []
    for distillation in (0.0, 50.0):
        learner = _learner(settings, shop, distillation)
        before = learner.item_vectors(np.arange(shop.items)).copy()
        learner.learn(shop.visits(3, 40), 3, passes=3)
        moves.append(float(np.linalg.norm(learner.item_vectors(np.arange(shop.items)) - before)))
    assert moves[1] < moves[0]


def test_a_learner_with_a_teacher_repeats_itself(settings: TrainerSettings, shop: object) -> None:
    first, second = (_learner(settings, shop, 1.0).item_vectors(np.arange(shop.items)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
