"""What a release that nobody saw would have earned."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from headrace.trainer.analysis.off_policy import (
    doubly_robust,
    place_chances,
    slate_doubly_robust,
    slate_value,
    slate_weights,
    snips,
)


def test_snips_by_hand() -> None:
    # weights 2, 0.5, 1: (2·1 + 0.5·0 + 1·1) / 3.5
    rewards, logged, target = np.array([1.0, 0.0, 1.0]), np.array([0.25, 0.8, 0.5]), np.array([0.5, 0.4, 0.5])
    found = snips(rewards, logged, target, np.arange(3))
    assert found.value == pytest.approx(3.0 / 3.5)
    assert found.effective_sample_size == pytest.approx(3.5**2 / (4.0 + 0.25 + 1.0))


def test_a_model_that_is_right_needs_no_overlap() -> None:
    predicted, rewards = np.array([0.2, 0.8]), np.array([0.2, 0.8])
    found = doubly_robust(
        rewards, np.array([0.5, 0.5]), np.array([0.5, 0.5]), predicted, np.array([0.6, 0.4]), np.arange(2)
    )
    assert found.value == pytest.approx(0.5)


def test_weights_are_cut_and_impossible_rows_are_refused() -> None:
    logged, target = np.array([[0.001, 1.0]]), np.array([[1.0, 0.0]])
    assert slate_weights(logged, target, clip=50.0).tolist() == [[50.0, 0.0]]
    with pytest.raises(ValueError, match=r"propensities must be above 0, got 0\.0"):
        slate_weights(np.zeros((1, 2)), target)


def test_nothing_that_agrees_is_no_value() -> None:
    assert slate_value(np.ones((3, 2)), np.zeros((3, 2)), np.arange(3)).effective_sample_size == 0.0


def test_place_chances_are_those_of_all_orders() -> None:
    logits, share = np.array([[0.3, 1.5, -1.0]]), 0.2
    speed, expected = np.exp(logits[0]), np.zeros(3)
    for order in permutations(range(3)):
        left = [speed[list(order[place:])].sum() for place in range(3)]
        chance = np.prod(speed[list(order)] / left)
        expected += share * chance * (np.array(order) == np.arange(3))
        expected += (1.0 - share) * (order == (1, 0, 2)) * (np.array(order) == np.arange(3))
    assert place_chances(logits, share)[0] == pytest.approx(expected, rel=1e-4)


def test_shorter_lists_count_for_the_places_that_they_have() -> None:
    logits = np.array([[1.0, 0.0, -np.inf], [0.5, 0.2, 0.1]])
    chances = place_chances(logits, 0.5)
    assert chances[0, :2] == pytest.approx(place_chances(logits[:1, :2], 0.5)[0])
    weights = slate_weights(np.where(chances > 0, chances, 1.0), np.ones((2, 3)))
    rewards = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    # places one and two of both lists, place three of the one that has it
    assert slate_value(rewards, weights, np.arange(2), sizes_B=np.array([2, 3])).value == pytest.approx(1.0 + 0.0 + 0.5)


def test_intervals_of_both_methods_hold_the_truth() -> None:
    # five products a list with chances to be clicked that differ; the target turns the logged order around
    rng, runs, share = np.random.default_rng(7), 60, 0.5
    sight, held = np.array([1.0, 0.7, 0.5, 0.4, 0.3]), np.zeros(2)
    for _ in range(runs):
        appeal = np.sort(rng.beta(1.0, 4.0, (1_200, 5)), axis=1)[:, ::-1]
        truth = float((appeal[:, ::-1] * sight).sum(axis=1).mean())
        scores = np.broadcast_to(np.linspace(1.0, -1.0, 5), (1_200, 5))
        noise = np.where(rng.random((1_200, 1)) < share, rng.gumbel(size=(1_200, 5)), 0.0)
        order = np.argsort(-(scores + noise), axis=1)
        shown, clicked = np.take_along_axis(appeal, order, axis=1) * sight, rng.random((1_200, 5))
        rewards = (clicked < shown).astype(float)
        weights = slate_weights(
            place_chances(np.take_along_axis(scores, order, axis=1), share), (order == [4, 3, 2, 1, 0]).astype(float)
        )
        people = np.arange(1_200) // 3
        model = np.full((1_200, 5), 0.2) * sight
        found = slate_value(rewards, weights, people), slate_doubly_robust(rewards, weights, model, model, people)
        held += [one.lower <= truth <= one.upper for one in found]
    assert (held / runs >= 0.88).all()
