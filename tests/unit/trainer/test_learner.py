"""Learning a slice: test, train, and say what moved."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.trainer.arrays import Arrays
from headrace.trainer.deltas import Deltas
from headrace.trainer.learner import Learner, windows_before
from headrace.trainer.prequential import Trial
from headrace.trainer.records import Product, Slice
from headrace.trainer.sequences import Grown
from headrace.trainer.settings import TrainerSettings


def _taught(settings: TrainerSettings, shop: object, slices: int) -> Learner:
    learner = Learner(settings)
    _sent(learner, learner.learn_products(shop.products()))
    for number in range(slices):
        _sent(learner, learner.learn(shop.visits(number, 40), number).deltas)
    return learner


def _sent(learner: Learner, deltas: Deltas) -> Deltas:
    learner.sent.note(deltas)
    return deltas


def _same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_new_product_has_a_vector_before_anything_is_learned(settings: TrainerSettings, shop: object) -> None:
    deltas = Learner(settings).learn_products(shop.products())
    assert deltas.ordinals.tolist() == list(range(shop.items))
    assert (np.linalg.norm(deltas.vectors, axis=1) > 0).all()


def test_products_of_like_content_begin_alike(settings: TrainerSettings, shop: object) -> None:
    vectors = Learner(settings).learn_products(shop.products()).vectors
    likeness = np.corrcoef(vectors)
    within, across = likeness[: shop.group, : shop.group].mean(), likeness[: shop.group, shop.group :].mean()
    assert within > across + 0.3


def test_the_rule_of_the_shop_is_learned(settings: TrainerSettings, shop: object) -> None:
    learner = _taught(settings, shop, 12)
    seen = np.array([1, 3], np.uint32)
    person = Grown(2, seen, np.ones(2, np.uint8), np.array([10**15, 10**15 + 10**6]), np.ones(2, np.uint8))
    windows = windows_before([Trial(person, 10**15, seen)], settings.max_length)
    scores = learner.user_vectors(windows, np.array([2])) @ learner.item_vectors(np.arange(shop.items)).T
    assert set(np.argsort(-scores[0])[: shop.group].tolist()) == set(range(shop.group))


def test_quality_is_measured_before_learning_and_beats_popularity(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings)
    learner.learn_products(shop.products())
    learner.learn(shop.visits(0, 40, length=1), 0)
    assert learner.prequential.overall().targets == 40


def test_only_rows_of_items_that_something_happened_to_move(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings)
    learner.learn_products(shop.products())
    records = shop.visits(1, 1, length=3)
    learner.learn(records, 0)
    moved = np.flatnonzero(learner.arrays()["rows.rows_ND"].any(axis=1))
    assert moved.tolist() == sorted(set(records.events.ordinals.tolist()))


def test_the_same_slices_give_the_same_state(settings: TrainerSettings, shop: object) -> None:
    assert _same(_taught(settings, shop, 3).arrays(), _taught(settings, shop, 3).arrays())


def test_a_restored_learner_goes_on_as_the_first_would_have(settings: TrainerSettings, shop: object) -> None:
    learner = _taught(settings, shop, 2)
    copy = Learner(settings)
    copy.restore({name: value.copy() for name, value in learner.arrays().items()})
    first, second = (each.learn(shop.visits(2, 40), 2).deltas.digest() for each in (learner, copy))
    assert first == second
    assert _same(learner.arrays(), copy.arrays())


def test_another_seed_learns_otherwise(settings: TrainerSettings, shop: object) -> None:
    other = settings.model_copy(update={"seed": 99})
    assert not _same(_taught(settings, shop, 1).arrays(), _taught(other, shop, 1).arrays())


def test_what_was_sent_and_did_not_move_is_not_sent_again(settings: TrainerSettings, shop: object) -> None:
    learner = _taught(settings, shop, 1)
    _sent(learner, learner.drifted())
    assert len(learner.drifted()) == 0
    assert len(learner.learn_products(shop.products())) == 0


def test_shared_projections_move_vectors_of_untouched_items(settings: TrainerSettings, shop: object) -> None:
    learner = _taught(settings, shop, 8)
    lonely = Product(99, shop.items, "garden chair number99", "", "garden chair", 5.0, False)
    _sent(learner, learner.learn_products([lonely]))
    for number in range(8, 16):
        learner.learn(shop.visits(number, 40), number)
    assert shop.items in learner.drifted().ordinals.tolist()


def test_a_deleted_product_leaves_a_tombstone_once(settings: TrainerSettings, shop: object) -> None:
    learner = _taught(settings, shop, 1)
    gone = Product(99, 4, "", "", "", 0.0, True)
    deltas = _sent(learner, learner.learn_products([gone]))
    assert (deltas.ordinals.tolist(), deltas.tombstones.tolist()) == ([4], [1])
    assert not deltas.vectors.any()
    assert len(learner.learn_products([gone])) == 0
    assert 4 not in learner.sent.all().ordinals.tolist()


def test_a_deleted_product_can_come_back(settings: TrainerSettings, shop: object) -> None:
    learner = _taught(settings, shop, 1)
    _sent(learner, learner.learn_products([Product(99, 4, "", "", "", 0.0, True)]))
    deltas = learner.learn_products([Product(100, 4, "garden chair number4", "", "garden chair", 9.0, False)])
    assert (deltas.ordinals.tolist(), deltas.tombstones.tolist()) == ([4], [0])


def test_an_item_can_be_bought_before_it_is_described(settings: TrainerSettings, shop: object) -> None:
    deltas = Learner(settings).learn(shop.visits(0, 5), 0).deltas
    assert len(deltas) > 0
    assert (np.linalg.norm(deltas.vectors, axis=1) > 0).all()


def test_an_empty_slice_changes_no_vector(settings: TrainerSettings, shop: object) -> None:
    learner = _taught(settings, shop, 1)
    assert len(learner.learn(Slice.empty(10, 10), 7).deltas) == 0


def test_words_of_a_title_find_the_item(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings)
    products = shop.products()
    learner.learn_products(products)
    for number in range(30):
        records = shop.visits(number, 10)
        learner.learn(Slice(0, 1, records.events, products), number)
    queries = learner.catalogue.encoder.encode(["garden chair", "kitchen mug"])
    weight, bias = (value.detach().numpy() for value in learner.towers.query.text.parameters())
    scores = (queries @ weight.T + bias) @ learner.item_vectors(np.arange(shop.items)).T
    tops = np.argsort(-scores, axis=1)[:, :5] // shop.group
    assert tops.tolist() == [[0] * 5, [1] * 5]


@pytest.mark.parametrize("name", ["towers.user.beginning", "sent.vectors_ND", "reservoir.seen", "popularity.counts_N"])
def test_the_state_holds_every_part(settings: TrainerSettings, shop: object, name: str) -> None:
    assert name in _taught(settings, shop, 1).arrays()


def test_a_view_of_an_item_in_an_emptied_shop_is_learned(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings)
    gone = [Product(1 + at, at, "", "", "", 0.0, True) for at in range(shop.items)]
    learner.learn_products(gone)
    learned = learner.learn(shop.visits(0, 3), 0)
    assert learned.examples > 0
    assert len(learned.deltas) == 0


def test_a_step_that_would_not_be_finite_is_not_taken(settings: TrainerSettings, shop: object) -> None:
    learner = _taught(settings, shop, 1)
    before = learner.arrays()["rows.rows_ND"].copy()
    towers = learner.arrays()["towers.user.beginning"]
    towers[:] = np.inf
    learned = learner.learn(shop.visits(1, 10), 1)
    assert learned.skipped_steps > 0
    np.testing.assert_array_equal(learner.arrays()["rows.rows_ND"], before)


def test_scores_begin_within_the_temperature_that_is_set(settings: TrainerSettings) -> None:
    towers = Learner(settings.model_copy(update={"temperature": 3.0})).towers
    assert float(towers.user.log_temperature.detach().exp()) == pytest.approx(3.0)


def test_rows_are_hidden_only_where_content_stands_in_for_them(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings.model_copy(update={"own_dropout": 0.999}))
    described = shop.products()[: shop.group]
    learner.learn_products(described)
    learner.learn(shop.visits(0, 20), 0)
    moved = learner.arrays()["rows.rows_ND"].any(axis=1)
    assert not moved[: shop.group].any()
    assert moved[shop.group : shop.items].all()
