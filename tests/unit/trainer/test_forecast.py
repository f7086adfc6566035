"""Towers, counts and their blend as forecasts of what comes next."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.trainer.counted import Counted
from headrace.trainer.forecast import SOURCES, Forecaster, Outcomes
from headrace.trainer.learner import Learner
from headrace.trainer.likeness import ItemFacts
from headrace.trainer.sequences import Grown, Pairs, Windows, pairs_of, windows_of
from headrace.trainer.settings import TrainerSettings

START_US = 1_600_000_000_000_000
ITEMS = 6
FACTS = ItemFacts(
    np.eye(ITEMS, dtype=np.float32), np.eye(ITEMS, dtype=np.float32), np.zeros((ITEMS, 1), np.int64), np.ones(ITEMS)
)


def _person(*ordinals: int, old: int = 0) -> Grown:
    size = len(ordinals)
    codes = np.ones(size, np.uint8)
    times = START_US + np.arange(size, dtype=np.int64) * 60_000_000
    return Grown(old, np.array(ordinals, np.uint32), codes, times, codes)


@pytest.fixture
def counted() -> Counted:
    found = Counted(half_life_days=30)
    found.grow(ITEMS)
    found.add([_person(0, 1), _person(0, 1), _person(0, 2)])
    return found


def _asked(*ordinals: int) -> tuple[Windows, Pairs]:
    windows = windows_of([_person(*ordinals)], 5)
    pairs = pairs_of(windows).followed()
    return windows, pairs.at(np.array([len(pairs) - 1]))


def _outcomes(counted: Counted, *ordinals: int, is_new_only: bool = False) -> Outcomes:
    windows, pairs = _asked(*ordinals)
    return Forecaster().outcomes(windows, pairs, FACTS.vectors_ND[[5]], FACTS, counted, is_new_only=is_new_only)


def test_what_went_along_is_forecast_by_its_share(counted: Counted) -> None:
    windows, pairs = _asked(0, 1)
    along, _, followers, own = counted.forecasts(windows, pairs.rows_P, pairs.states_P)
    assert along.of(np.array([[1]]))[0, 0] == pytest.approx(2 / 3)
    assert along.of(np.array([[2]]))[0, 0] == pytest.approx(1 / 3)
    assert followers.of(np.array([[1]]))[0, 0] == pytest.approx(2 / 3)
    assert own.of(np.array([[0]]))[0, 0] == pytest.approx(1.0)


def test_each_source_ranks_by_itself_and_the_blend_by_all(counted: Counted) -> None:
    outcomes = _outcomes(counted, 0, 1)
    # the towers want item 5 and know no difference between the others; the counts put 1 before 0
    assert (outcomes.vector_ranks_P[0], outcomes.counted_ranks_P[0], outcomes.ranks_P[0]) == (3, 1, 1)


def test_each_source_says_how_likely_the_target_was(counted: Counted) -> None:
    said = dict(zip(SOURCES, _outcomes(counted, 0, 2).chances_PK[0].tolist(), strict=True))
    assert said["covisitation"] == pytest.approx(1 / 3)
    assert said["own"] == 0.0
    assert said["popularity"] == pytest.approx(1 / ITEMS)


def test_what_was_seen_can_be_left_out(counted: Counted) -> None:
    assert _outcomes(counted, 0, 1, is_new_only=True).counted_ranks_P[0] == 1


def _taught(forecaster: Forecaster, counted: Counted, windows: Windows, pairs: Pairs) -> None:
    forecaster.learn(forecaster.outcomes(windows, pairs, FACTS.vectors_ND[[5]], FACTS, counted, is_lesson=True))


def test_outcomes_without_their_lists_teach_nothing_silently(counted: Counted) -> None:
    with pytest.raises(ValueError, match="is_lesson"):
        Forecaster().learn(_outcomes(counted, 0, 1))


def test_the_blend_comes_to_believe_the_source_that_knows(counted: Counted) -> None:
    forecaster = Forecaster()
    windows, pairs = _asked(0, 1)
    for _ in range(300):
        _taught(forecaster, counted, windows, pairs)
    weights = dict(zip(SOURCES, forecaster.blend.weights_CK[0].tolist(), strict=True))
    assert weights["covisitation"] + weights["covisitation_last"] + weights["followers"] > 0.8


def test_a_learner_foresees_better_than_chance(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings)
    learner.learn_products(shop.products())
    for number in range(10):
        learner.learn(shop.visits(number, 40), number)
    people = [_person(1, 3, 5), _person(12, 15, 11)]
    windows = windows_of(people, settings.max_length)
    ranks = learner.foresee(windows, pairs_of(windows).followed(), shop.items).ranks_P
    assert ranks.max() <= shop.group
