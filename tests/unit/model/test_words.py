"""Titles as word codes with weights, and how alike two titles are."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.feature_store.word_counts import WordCounts
from headrace.model.words import WORDS, title_likeness, word_codes

NONE = np.zeros(2 * WORDS, np.float32)


def _read(*titles: str) -> list[np.ndarray]:
    counts = WordCounts()
    return [counts.read(title, NONE) for title in titles]


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    codes, weights = one[None, :WORDS].astype(np.int64), one[None, WORDS:]
    others = other[None, :WORDS].astype(np.int64), other[None, WORDS:]
    return float(title_likeness(codes, weights, np.ones((1, 1)), *others)[0, 0])


def test_case_and_marks_do_not_matter_and_a_word_counts_once() -> None:
    np.testing.assert_array_equal(word_codes("Red MUG, red!"), word_codes("red mug"))


def test_a_title_is_wholly_like_itself_and_not_like_another() -> None:
    mug, bag = _read("red mug", "blue bag")
    assert _alike(mug, mug) == pytest.approx(1.0)
    assert _alike(mug, bag) == 0.0


def test_a_rare_word_in_common_says_more_than_a_frequent_one() -> None:
    *_, rare, frequent, title = _read(*["red thing"] * 20, "green zebra", "red chair", "red zebra")
    assert _alike(title, rare) > _alike(title, frequent) > 0


def test_nothing_is_like_a_title_without_words() -> None:
    nothing, mug = _read("", "mug")
    assert not nothing.any()
    assert _alike(nothing, mug) == _alike(mug, nothing) == 0.0


def test_many_ways_to_weigh_recent_titles_are_answered_at_once() -> None:
    mug, bag, asked = _read("mug", "bag", "bag")
    recent = np.stack([mug, bag])
    shares = np.array([[1.0, 0.0], [0.5, 0.5]])
    codes, weights = recent[:, :WORDS].astype(np.int64), recent[:, WORDS:]
    found = title_likeness(codes, weights, shares, asked[None, :WORDS].astype(np.int64), asked[None, WORDS:])
    assert found[:, 0].tolist() == pytest.approx([0.0, 0.5])


def test_a_title_that_changed_is_counted_once() -> None:
    counts, fresh = WordCounts(), WordCounts()
    first = counts.read("red mug", NONE)
    counts.read("blue mug", first)
    fresh.read("blue mug", NONE)
    for name, column in counts.columns().items():
        np.testing.assert_array_equal(column, fresh.columns()[name])


def test_restored_counts_read_on_in_the_same_way() -> None:
    counts, restored = WordCounts(), WordCounts()
    counts.read("red mug", NONE)
    restored.restore(counts.columns())
    np.testing.assert_array_equal(counts.read("red bag", NONE), restored.read("red bag", NONE))
