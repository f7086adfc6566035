"""Orders drawn by chance: as often as is logged, and never anything else than the slate."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from headrace.ranker.exploration import GREEDY, SOFTMAX, Exploration, mixture_propensities

SCORES = np.array([2.0, 1.2, 0.9, -0.4], np.float32)
ANSWERS = 20_000
# chi-square with 23 degrees of freedom is above this once in a thousand
CHI_SQUARE_23 = 49.7


def _propensity(exploration: Exploration, order: tuple[int, ...]) -> float:
    """Of a whole list, by a choice that happened to be this one, or straight from the formula."""
    logits = SCORES.astype(np.float64) / (0.5 * float(np.std(SCORES, dtype=np.float64)))
    return float(np.prod(mixture_propensities(logits, np.array(order), exploration.share), dtype=np.float64))


def test_orders_come_as_often_as_their_logged_propensities_say() -> None:
    exploration = Exploration(share=0.4, temperature=0.5)
    choices = [exploration.choice(SCORES, f"answer {number}") for number in range(ANSWERS)]
    seen = Counter(tuple(choice.order_S.tolist()) for choice in choices)
    expected = {order: ANSWERS * _propensity(exploration, order) for order in permutations(range(len(SCORES)))}
    assert sum(expected.values()) == pytest.approx(ANSWERS)
    chi_square = sum((seen[order] - count) ** 2 / count for order, count in expected.items())
    assert chi_square < CHI_SQUARE_23
    for choice in choices[:100]:
        logged = float(np.prod(choice.propensities_S, dtype=np.float64))
        assert logged == pytest.approx(_propensity(exploration, tuple(choice.order_S.tolist())), rel=1e-5)


def test_the_value_of_another_order_is_estimated_without_bias() -> None:
    # what the third item is worth at the top, of which greedy never tells
    exploration = Exploration(share=0.3, temperature=1.0)
    worth = np.array([0.1, 0.2, 0.9, 0.3])
    rng = np.random.default_rng(5)
    weighted = []
    for number in range(ANSWERS):
        choice = exploration.choice(SCORES, f"answer {number}")
        first = int(choice.order_S[0])
        clicked = rng.random() < worth[first]
        weighted.append(clicked / choice.propensities_S[0] if first == 2 else 0.0)
    estimate, error = float(np.mean(weighted)), float(np.std(weighted)) / ANSWERS**0.5
    assert abs(estimate - worth[2]) < 3.3 * error
    assert error < 0.04


def test_about_the_share_of_the_answers_is_drawn_and_the_rest_is_greedy() -> None:
    choices = [Exploration(0.02, 0.5).choice(SCORES, f"answer {number}") for number in range(5_000)]
    names = Counter(choice.policy.name for choice in choices)
    assert set(names) == {GREEDY, SOFTMAX}
    # 100 expected, standard deviation 10
    assert 60 <= names[SOFTMAX] <= 140
    greedy = [choice for choice in choices if choice.policy.name == GREEDY]
    assert all((choice.order_S == np.arange(4)).all() for choice in greedy)
    assert all(0.98 <= choice.propensities_S[0] < 1 for choice in greedy)


def test_the_same_answer_is_drawn_again_alike() -> None:
    first, again = (Exploration(1.0, 0.5).choice(SCORES, "some token") for _ in range(2))
    assert (first.order_S == again.order_S).all()
    assert (first.propensities_S == again.propensities_S).all()


def test_with_no_share_every_place_is_certain() -> None:
    choice = Exploration(0.0, 0.5).choice(SCORES, "a")
    assert choice.policy.name == GREEDY
    assert choice.order_S.tolist() == [0, 1, 2, 3]
    assert choice.propensities_S.tolist() == [1, 1, 1, 1]


def test_equal_scores_are_drawn_in_every_order_alike() -> None:
    choice = Exploration(1.0, 0.5).choice(np.zeros(4, np.float32), "a")
    assert choice.propensities_S.tolist() == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1])


def test_a_long_list_has_a_probability_at_every_place() -> None:
    scores = np.sort(np.random.default_rng(1).standard_normal(500).astype(np.float32))[::-1]
    for number in range(20):
        propensities = Exploration(0.5, 0.5).choice(scores, f"answer {number}").propensities_S
        assert ((propensities > 0) & (propensities <= 1)).all()


def test_a_wider_spread_of_scores_makes_no_difference() -> None:
    narrow, wide = (Exploration(1.0, 0.5).choice(SCORES * factor, "a") for factor in (1, 1000))
    assert (narrow.order_S == wide.order_S).all()
    assert narrow.propensities_S == pytest.approx(wide.propensities_S, rel=1e-4)
