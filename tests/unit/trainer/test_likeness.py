"""How like items are to what was just seen."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.model.towers import TowerShape
from headrace.trainer.catalogue import Catalogue
from headrace.trainer.likeness import KINDS, ItemFacts, likeness
from headrace.trainer.records import Product
from headrace.trainer.sequences import Grown, Pairs, Windows, pairs_of, windows_of

VECTORS = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], np.float32)
NOTHING = np.zeros((4, 1), np.int64)


def _facts(marks: np.ndarray = NOTHING) -> ItemFacts:
    return ItemFacts(VECTORS, VECTORS[::-1].copy(), marks, np.ones(4))


def _state(*ordinals: int) -> tuple[Windows, Pairs]:
    """The state before the last of some events."""
    size = len(ordinals)
    ones, times = np.ones(size, np.uint8), np.arange(size, dtype=np.int64) * 60_000_000
    windows = windows_of([Grown(0, np.array(ordinals, np.uint32), ones, times, ones)], 20)
    pairs = pairs_of(windows)
    return windows, pairs.at(np.flatnonzero(pairs.states_P == size - 1))


def _of(*seen: int, asked: list[int], facts: ItemFacts | None = None) -> np.ndarray:
    windows, pairs = _state(*seen, 0)
    return likeness(facts or _facts(), windows, pairs, np.array([asked]))[0]


def test_by_vectors_to_the_newest_by_age_and_to_the_nearest() -> None:
    newest, by_age, nearest = _of(1, 0, asked=[0, 1])[:, :3].T
    assert newest.tolist() == [1, 0]
    assert by_age == pytest.approx([1 / 1.8, 0.8 / 1.8])
    assert nearest.tolist() == [1, 1]


def test_by_words_in_the_same_way() -> None:
    # the words of item 0 are the vector of item 3
    assert _of(0, asked=[0, 3])[:, 3].tolist() == pytest.approx([1, 0.6])


def test_by_the_share_of_an_item_s_marks_that_what_was_seen_has_too() -> None:
    facts = _facts(np.array([[1, 2, 3], [1, 0, 0], [1, 5, 5], [0, 0, 0]]))
    newest, by_age = _of(1, 0, asked=[0, 1, 2, 3], facts=facts)[:, 6:].T
    assert newest.tolist() == pytest.approx([1, 1, 1 / 3, 0])
    assert by_age.tolist() == pytest.approx([(1 + 2 / 1.8) / 3, 1, 1 / 3, 0])


def test_a_mark_that_an_item_bears_twice_counts_once() -> None:
    facts = _facts(np.array([[1, 1], [1, 0], [2, 0], [0, 0]]))
    assert _of(0, asked=[1], facts=facts)[0, 6:].tolist() == [1, 1]


def test_nothing_is_like_nothing() -> None:
    assert not _of(asked=[0, 1, 2, 3]).any()


def test_an_item_that_came_after_the_facts_is_like_nothing() -> None:
    known = _of(0, asked=[0, 1])
    with_a_later_one = _of(9, asked=[0, 1])
    assert known.shape == (2, KINDS)
    assert not with_a_later_one.any()


def test_marks_of_brand_category_and_attributes_are_numbered_apart() -> None:
    shape = TowerShape(text_width=4, brand_buckets=8, category_buckets=8, attribute_buckets=8)
    catalogue = Catalogue(shape, 1)
    catalogue.fold([Product(0, 0, "a", "x", "x", 0.0, deleted=False, attributes=("x",))])
    catalogue.grow(2)
    described, unknown = catalogue.marks(np.arange(2))
    assert len(set(described[described > 0].tolist())) == 3
    assert not unknown.any()


def test_texts_have_length_1() -> None:
    catalogue = Catalogue(TowerShape(text_width=4), 1)
    catalogue.fold([Product(0, 0, "one word", "", "", 0.0, deleted=False, attributes=())])
    catalogue.grow(3)
    assert np.linalg.norm(catalogue.text_directions(np.arange(3)), axis=1) == pytest.approx(np.ones(3))
