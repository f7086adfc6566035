"""What a release keeps of its recall, on the vectors as they have become."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from headrace.trainer.comparability import Comparability, Remainder
from headrace.trainer.learner import Learner
from headrace.trainer.sequences import Windows, windows_of
from headrace.trainer.settings import TrainerSettings


class Spaces:
    """Says which space vectors go to."""

    now = "main-1"

    def __call__(self) -> str:
        return self.now


@pytest.fixture
def space() -> Spaces:
    return Spaces()


@pytest.fixture
def taught(settings: TrainerSettings, large_shop: object) -> Learner:
    learner = Learner(settings)
    learner.sent.note(learner.learn_products(large_shop.products()))
    for number in range(12):
        learner.sent.note(learner.learn(large_shop.visits(number, 40), number).deltas)
    learner.sent.note(learner.drifted())
    return learner


def _unseen(learner: Learner, shop: object, number: int = 99) -> Windows:
    people = copy.deepcopy(learner._sequences).fold(shop.visits(number, 60).events)
    return windows_of(people, learner.shape.max_length)


def _followed(learner: Learner, space: Spaces) -> Comparability:
    compared = Comparability(learner, space, every_s=1e-9, states=1_000)
    compared.follow(space.now)
    return compared


def _turned(learner: Learner) -> None:
    """Reverses every item vector: nothing of the old space is left."""
    learner.towers.item.load_state_dict({name: -value for name, value in learner.towers.item.state_dict().items()})
    rows = learner.arrays()["rows.rows_ND"]
    rows *= -1


def test_vectors_that_stay_keep_everything(taught: Learner, large_shop: object, space: Spaces) -> None:
    compared = _followed(taught, space)
    compared.note(_unseen(taught, large_shop))
    assert compared.skew.hits > 100
    # a vector that moved less than the threshold was not sent
    assert compared.metrics()["skew"] == 1.0
    assert compared.metrics()["comparability"] == pytest.approx(1.0, abs=0.02)


def test_vectors_that_were_turned_round_keep_nothing(taught: Learner, large_shop: object, space: Spaces) -> None:
    compared = _followed(taught, space)
    _turned(taught)
    compared.note(_unseen(taught, large_shop))
    assert compared.comparability.share < 0.5
    assert compared.comparability.is_below(0.5)
    # they were not sent yet: what is served is as it was
    assert compared.skew.share == 1.0


def test_what_is_served_suffers_once_vectors_are_sent(taught: Learner, large_shop: object, space: Spaces) -> None:
    compared = _followed(taught, space)
    rng = np.random.default_rng(1)
    sent = taught.sent.arrays()["vectors_ND"]
    sent[: large_shop.items] = sent[rng.permutation(large_shop.items)]
    compared.note(_unseen(taught, large_shop))
    assert compared.skew.is_below(0.97)
    assert compared.comparability.share == pytest.approx(1.0, abs=0.02)


def test_nothing_is_measured_before_a_release_nor_in_another_space(
    taught: Learner, large_shop: object, space: Spaces
) -> None:
    compared = Comparability(taught, space, every_s=1e-9, states=1_000)
    compared.note(_unseen(taught, large_shop))
    assert compared.metrics() == {}
    compared.follow("main-0")
    compared.note(_unseen(taught, large_shop))
    assert compared.metrics() == {}


def test_measurements_keep_their_distance(taught: Learner, large_shop: object, space: Spaces) -> None:
    compared = Comparability(taught, space, every_s=3_600, states=1_000)
    compared.follow(space.now)
    compared.note(_unseen(taught, large_shop))
    assert compared.metrics() == {}


def test_only_the_newest_states_count(taught: Learner, large_shop: object, space: Spaces) -> None:
    compared = Comparability(taught, space, every_s=1e-9, states=50)
    compared.follow(space.now)
    for number in (98, 99):
        compared.note(_unseen(taught, large_shop, number))
    assert compared.metrics()["compared_states"] == 50


def test_a_release_begins_without_a_past(taught: Learner, large_shop: object, space: Spaces) -> None:
    compared = _followed(taught, space)
    compared.note(_unseen(taught, large_shop))
    compared.follow(space.now)
    assert compared.metrics() == {}


def test_measuring_changes_nothing_that_is_learned(settings: TrainerSettings, large_shop: object) -> None:
    digests = []
    for is_measured in (True, False):
        learner = Learner(settings)
        compared = _followed(learner, Spaces())
        learner.before_learning = compared.note if is_measured else lambda _: None
        for number in range(3):
            learned = learner.learn(large_shop.visits(number, 40), number)
            learner.sent.note(learned.deltas)
            compared.follow(Spaces.now)
        digests.append(learned.deltas.digest())
    assert digests[0] == digests[1]


def test_a_share_below_the_limit_may_be_chance() -> None:
    assert Remainder(hits=50, lost=4, gained=2).share == pytest.approx(0.96)
    assert not Remainder(hits=50, lost=4, gained=2).is_below(0.97)
    assert Remainder(hits=500, lost=40, gained=10).is_below(0.97)
    assert not Remainder(hits=0, lost=0, gained=0).is_below(0.97)
