"""Training rows are scored by towers that knew nothing of what followed."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.model.candidates import CANDIDATE_FEATURES, RETRIEVAL_FEATURES
from headrace.model.events import EventCode
from headrace.model.history import History
from headrace.trainer.learner import Learner
from headrace.trainer.past_towers import TowerHistory
from headrace.trainer.row_scores import scored_groups
from headrace.trainer.rows import RowPart

MINUTE_US = 60_000_000
VECTOR_COLUMNS = [CANDIDATE_FEATURES.index(name) for name in RETRIEVAL_FEATURES[:2]]


@pytest.fixture
def learner(shop, settings) -> Learner:
    learner = Learner(settings)
    learner.sent.note(learner.learn_products(shop.products()))
    learner.sent.note(learner.learn(shop.visits(1, 40), 1).deltas)
    return learner


def part_at(time_us: int) -> RowPart:
    """One group of three candidates; its person saw items 1 and 2 a minute before."""
    history = History(
        np.array([1, 2], np.uint32),
        np.full(2, EventCode.VIEW, np.uint8),
        np.full(2, time_us - MINUTE_US, np.int64),
        np.ones(2, np.uint8),
    )
    return RowPart(
        np.array([3, 4, 15], np.uint32),
        np.zeros((3, len(CANDIDATE_FEATURES)), np.float32),
        np.array([1, 0, 0], np.uint8),
        np.ones(3, np.float32),
        np.array([3], np.int64),
        np.array([time_us], np.int64),
        np.array([9], np.int64),
        (history,),
        ("u:1",),
        9,
    )


def test_the_newest_towers_before_a_time_are_given(learner) -> None:
    towers = TowerHistory()
    for minute in (0, 20, 40):
        towers.note(learner, minute * MINUTE_US)
    found = towers.before(39 * MINUTE_US)
    assert found is not None
    assert found.time_us == 20 * MINUTE_US


def test_towers_that_learned_later_are_never_given(learner) -> None:
    towers = TowerHistory()
    towers.note(learner, 20 * MINUTE_US)
    assert towers.before(20 * MINUTE_US - 1) is None


def test_towers_are_kept_a_quarter_of_an_hour_apart_and_not_for_ever(learner) -> None:
    towers = TowerHistory()
    for minute in range(0, 600, 5):
        towers.note(learner, minute * MINUTE_US)
    kept = [minute for minute in range(600) if (found := towers.before(minute * MINUTE_US)) and found.time_us]
    assert kept[0] == 480
    assert {towers.before(minute * MINUTE_US).time_us // MINUTE_US for minute in kept} == set(range(480, 600, 15))


def test_learning_on_does_not_change_the_past(learner, shop) -> None:
    towers = TowerHistory()
    towers.note(learner, 10 * MINUTE_US)
    before = scored_groups(part_at(11 * MINUTE_US), towers, 10)
    learner.sent.note(learner.learn(shop.visits(2, 60), 2).deltas)
    after = scored_groups(part_at(11 * MINUTE_US), towers, 10)
    assert np.array_equal(before.features_RF, after.features_RF)
    assert before.features_RF[:, VECTOR_COLUMNS].any()


def test_a_group_without_towers_before_it_has_no_scores(learner) -> None:
    towers = TowerHistory()
    towers.note(learner, 10 * MINUTE_US)
    groups = scored_groups(part_at(9 * MINUTE_US), towers, 10)
    assert not groups.features_RF[:, VECTOR_COLUMNS].any()
