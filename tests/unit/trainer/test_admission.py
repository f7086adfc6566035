"""Rows of their own for items that are met often enough, and not too long ago."""

from __future__ import annotations

import numpy as np

from headrace.trainer.admission import Admission
from headrace.trainer.learner import Learner
from headrace.trainer.settings import TrainerSettings

_DAY_US = 86_400_000_000
# slices of the shop that are more than 10 days apart
_LATER = 100


def _met(admission: Admission, ordinals: list[int], day: float) -> None:
    admission.meet(np.array(ordinals, np.uint32), np.full(len(ordinals), int(day * _DAY_US)))


def _admission(admit_after: int = 1, expire_days: float = 0.0) -> Admission:
    admission = Admission(admit_after, expire_days)
    admission.grow(4)
    return admission


def _admitted(admission: Admission) -> list[bool]:
    return admission.are_admitted(np.arange(4)).tolist()


def test_an_item_is_admitted_once_it_was_met_often_enough() -> None:
    admission = _admission(admit_after=3)
    _met(admission, [0, 0, 1], day=1)
    assert _admitted(admission) == [False] * 4
    _met(admission, [0], day=2)
    assert _admitted(admission) == [True, False, False, False]


def test_an_item_that_nobody_met_for_too_long_must_be_met_anew() -> None:
    admission = _admission(admit_after=2, expire_days=10)
    _met(admission, [0, 0, 1, 1], day=1)
    _met(admission, [1], day=11.5)
    assert admission.expire().tolist() == [0]
    assert admission.expire().tolist() == []
    _met(admission, [0], day=12)
    assert _admitted(admission) == [False, True, False, False]


def test_without_a_term_nothing_expires() -> None:
    admission = _admission()
    _met(admission, [0], day=1)
    _met(admission, [1], day=10_000)
    assert admission.expire().tolist() == []


def test_what_was_counted_is_found_again() -> None:
    admission = _admission(admit_after=2, expire_days=10)
    _met(admission, [0, 0, 1], day=1)
    copy = _admission(admit_after=2, expire_days=10)
    copy.restore({name: value.copy() for name, value in admission.arrays().items()})
    for each in (admission, copy):
        _met(each, [1], day=11.5)
    assert _admitted(admission) == _admitted(copy) == [True, True, False, False]
    assert admission.expire().tolist() == copy.expire().tolist() == [0]


def test_only_rows_of_admitted_items_move(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings.model_copy(update={"admit_after": 3}))
    learner.learn_products(shop.products())
    records = shop.visits(1, 4)
    learner.learn(records, 0)
    moved = np.flatnonzero(learner.arrays()["rows.rows_ND"].any(axis=1))
    often = np.flatnonzero(np.bincount(records.events.ordinals) >= 3)
    assert 0 < len(often) < shop.items
    assert moved.tolist() == often.tolist()


def test_an_item_that_is_not_admitted_is_its_content_alone(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings.model_copy(update={"admit_after": 1_000}))
    learner.learn_products(shop.products())
    learned = learner.learn(shop.visits(1, 4), 0)
    assert len(learned.deltas) > 0
    assert not learner.arrays()["rows.rows_ND"].any()


def test_a_row_that_expires_is_zero_again_and_its_vector_is_sent(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings.model_copy(update={"expire_days": 10.0}))
    learner.sent.note(learner.learn_products(shop.products()))
    first, second = shop.visits(0, 4), shop.visits(_LATER, 1)
    learner.sent.note(learner.learn(first, 0).deltas)
    learned = learner.learn(second, 1)
    gone = sorted(set(first.events.ordinals.tolist()) - set(second.events.ordinals.tolist()))
    assert gone
    assert set(gone) <= set(learned.deltas.ordinals.tolist())
    arrays = learner.arrays()
    for name in ("rows_ND", "first_ND", "second_N", "steps_N"):
        assert not arrays[f"rows.{name}"][gone].any(), name


def test_an_expired_item_that_is_met_again_has_a_row_again(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings.model_copy(update={"expire_days": 10.0}))
    learner.learn_products(shop.products())
    first = shop.visits(0, 4)
    learner.learn(first, 0)
    learner.learn(shop.visits(_LATER, 1), 1)
    learner.learn(shop.visits(_LATER, 40), 2)
    assert learner.arrays()["rows.rows_ND"][: shop.items].any(axis=1).all()
