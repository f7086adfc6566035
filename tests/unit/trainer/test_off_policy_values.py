"""What releases would have earned, from lists as the ranker's own exploration orders and logs them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from benchmarks.shown_lists import logged_lists, shown_list
from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.ranker.exploration import Exploration, mixture_propensities
from headrace.trainer.analysis.off_policy import place_chances
from headrace.trainer.off_policy_values import NO_SUPPORT, LoggedValues
from headrace.trainer.paired_scores import Scored
from headrace.trainer.recent_lists import ShownLists

LISTS, SHOWN, RUNS = 600, 6, 25
SIGHT = 1.0 / (1.0 + 0.3 * np.arange(SHOWN))
# what is liked, what the logging release goes by, and what another one would
TRUE, LOGGING, OTHER = (np.zeros(len(CANDIDATE_FEATURES), np.float32) for _ in range(3))
TRUE[:2], LOGGING[:2], OTHER[:2] = (1.0, 1.0), (1.0, 0.2), (0.4, 1.0)


def _logged(exploration: Exploration, seed: int) -> ShownLists:
    """Lists whose items' chances of a click are known, as gate 1 reads them; three lists a person."""
    rng, found = np.random.default_rng(seed), []
    for number in range(LISTS):
        features, ordinals = _features(rng, 1)[0], rng.permutation(SHOWN).astype(np.uint32)
        person, token = f"u:{number // 3}", f"{seed} {number}"
        shown = shown_list(exploration, ordinals, features @ LOGGING, features, token, person, 1_000_000 * number)
        found.append((shown, shown.ordinals[rng.random(SHOWN) < _chances(shown.features)]))
    return logged_lists(found)


def _features(rng: np.random.Generator, lists: int) -> np.ndarray:
    features = np.zeros((lists, SHOWN, len(CANDIDATE_FEATURES)), np.float32)
    features[:, :, :2] = rng.standard_normal((lists, SHOWN, 2))
    return features


def _chances(features: np.ndarray) -> np.ndarray:
    return SIGHT / (1.0 + np.exp(1.5 - features @ TRUE))


def _truth(weights: np.ndarray) -> float:
    features = _features(np.random.default_rng(1), 50_000)
    order = np.argsort(-(features @ weights), axis=1)
    return float(_chances(np.take_along_axis(features, order[:, :, None], axis=1)).sum(axis=1).mean())


def _scored(lists: ShownLists, weights: np.ndarray) -> Scored:
    scores = lists.features_RF @ weights
    return Scored.of(scores, (1.0 / (1.0 + np.exp(2.0 - scores))).astype(np.float32))


def test_intervals_hold_what_an_order_that_nobody_saw_truly_earns() -> None:
    held = np.zeros((2, 2))
    for seed in range(RUNS):
        lists = _logged(Exploration(0.5, 1.0), seed)
        values, foretold = LoggedValues(lists), _scored(lists, LOGGING)
        for row, weights in enumerate((OTHER, LOGGING)):
            found = values.of(_scored(lists, weights), foretold)
            assert found[0].effective_sample_size > 10
            held[row] += [each.lower <= _TRUTHS[row] <= each.upper for each in found]
    assert (held / RUNS >= 0.88).all()


_TRUTHS = (_truth(OTHER), _truth(LOGGING))


def test_the_worst_order_is_valued_below_the_best() -> None:
    lists = _logged(Exploration(1.0, 2.0), 0)
    values, foretold = LoggedValues(lists), _scored(lists, TRUE)
    best, worst = (values.of(_scored(lists, weights), foretold) for weights in (TRUE, -TRUE))
    for better, worse in zip(best, worst, strict=True):
        assert worse.upper < better.value
        assert worse.value < better.lower


def test_the_chance_of_a_place_is_what_the_logged_propensities_add_up_to() -> None:
    scores, share = np.array([2.0, 1.2, 0.9, -0.4], np.float32), 0.3
    logits = scores.astype(np.float64) / (0.5 * float(np.std(scores, dtype=np.float64)))
    summed = np.zeros((4, 4))
    for order in permutations(range(4)):
        summed[list(order), range(4)] += np.prod(mixture_propensities(logits, np.array(order), share), dtype=np.float64)
    for order in permutations(range(4)):
        best = np.argsort(order)[None]
        found = place_chances(logits[list(order)][None], share, best)[0]
        assert found == pytest.approx(summed[list(order), range(4)], abs=1e-5)


def test_places_below_the_slate_stay_and_equal_scores_go_by_ordinal() -> None:
    lists = _one_list(scores=[1.0, 1.0, 0.0], ordinals=[8, 3, 5], slate=2, share=0.2)
    # 3 comes before 8 unless chance turns them round, which it does half of the times that it is asked
    assert LoggedValues(lists).of(Scored.of(lists.scores_R, lists.scores_R), _nothing(3))[0].value == pytest.approx(2.0)
    other = LoggedValues(lists)._grid.chances_BK[0]
    assert other == pytest.approx([0.1, 0.1, 1.0], rel=1e-3)


@pytest.mark.parametrize(("slate", "share"), [(4, 0.2), (2, 0.0), (1, 0.2)])
def test_lists_whose_chances_nobody_can_tell_are_no_support(slate: int, share: float) -> None:
    lists = _one_list(scores=[1.0, 0.5, 0.0], ordinals=[1, 2, 3], slate=slate, share=share)
    assert LoggedValues(lists).of(_nothing(3), _nothing(3)) == (NO_SUPPORT, NO_SUPPORT)


def test_no_lists_are_no_support() -> None:
    assert LoggedValues(ShownLists.none()).of(_nothing(0), _nothing(0)) == (NO_SUPPORT, NO_SUPPORT)


def _one_list(scores: list[float], ordinals: list[int], slate: int, share: float) -> ShownLists:
    count = len(scores)
    return ShownLists(
        np.zeros((count, len(CANDIDATE_FEATURES)), np.float32),
        np.array([1, 0, 1], np.uint8),
        np.array(scores, np.float32),
        np.array(ordinals, np.uint32),
        np.array([count]),
        np.array([7]),
        np.array([share]),
        np.array([0.5]),
        np.array([slate]),
    )


def _nothing(rows: int) -> Scored:
    return Scored.of(np.zeros(rows, np.float32), np.zeros(rows, np.float32))
