"""Vectors in memory, candidates from several sources, and their order."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.model.candidates import COVISITATION, POPULAR, VECTOR
from headrace.model.history import History
from headrace.model.items import COLUMN, NEIGHBOURS, NO_NEIGHBOUR, Items
from headrace.ranker.answer import source_names
from headrace.ranker.filters import Allowed
from headrace.ranker.lexical import Hits
from headrace.ranker.peers import Neighbours
from headrace.ranker.ranking import Selection, as_given, by_model, filled, selected
from headrace.ranker.scoring import Person, strongest_features
from headrace.ranker.search import fuse
from headrace.ranker.sources import Candidates, bought_together, merged, newest_first, popular_among
from headrace.ranker.vectors import Vectors

U32 = np.uint32


def ordinals(*values: int) -> np.ndarray:
    return np.array(values, U32)


def kept(count: int) -> np.ndarray:
    return np.zeros(count, np.bool_)


def test_unknown_items_have_a_row_of_zeros():
    vectors = Vectors("main")
    assert vectors.rows(ordinals(3)).shape == (1, 0)
    vectors.apply(ordinals(1), np.ones((1, 2), np.float32), kept(1), 1, 5)
    assert vectors.rows(ordinals(1, 0, 10**6)).tolist() == [[1, 1], [0, 0], [0, 0]]
    assert (vectors.count, vectors.applied_sequence, vectors.log_offset) == (1, 1, 5)


def test_a_tombstone_takes_a_vector_away():
    vectors = Vectors("main")
    vectors.apply(ordinals(1, 2), np.ones((2, 2), np.float32), kept(2), 2, 0)
    vectors.apply(ordinals(1), np.zeros((1, 2), np.float32), np.array([True]), 3, 0)
    assert vectors.count == 1
    assert vectors.rows(ordinals(1)).tolist() == [[0, 0]]


def test_vectors_survive_growth_and_keep_only_forgets_the_rest():
    vectors = Vectors("main")
    vectors.apply(ordinals(0, 1), np.ones((2, 2), np.float32), kept(2), 2, 0)
    vectors.apply(ordinals(9_000), np.full((1, 2), 2, np.float32), kept(1), 3, 0)
    assert vectors.rows(ordinals(0, 9_000)).tolist() == [[1, 1], [2, 2]]
    vectors.keep_only(ordinals(9_000, 10**6))
    assert vectors.count == 1


def test_a_vector_of_another_width_is_refused():
    vectors = Vectors("main")
    vectors.apply(ordinals(0), np.ones((1, 2), np.float32), kept(1), 1, 0)
    with pytest.raises(ValueError, match="dimension 2"):
        vectors.apply(ordinals(0), np.ones((1, 3), np.float32), kept(1), 2, 0)


def test_nearest_in_memory_is_exact_filtered_and_even_ones_go_by_ordinal():
    vectors = Vectors("main")
    rows = np.array([[1, 0], [0, 1], [1, 0], [2, 0]], np.float32)
    vectors.apply(ordinals(0, 1, 2, 3), rows, kept(4), 4, 0)
    found, scores = vectors.nearest(np.array([1, 0], np.float32), 2, np.array([True, True, True, False]))
    assert found.tolist() == [0, 2]
    assert scores.tolist() == [1, 1]
    assert vectors.nearest(np.ones(2, np.float32), 2, np.zeros(4, np.bool_))[0].tolist() == []


def test_merging_keeps_first_sight_and_every_source():
    parts = [Candidates.of(ordinals(5, 2), VECTOR), Candidates.of(ordinals(2, 9), POPULAR)]
    both = merged(parts, 10)
    assert both.ordinals.tolist() == [5, 2, 9]
    assert source_names(int(both.sources[1])) == ["popular", "vector"]
    assert merged(parts, 2).ordinals.tolist() == [5, 2]
    assert len(merged([], 2)) == 0


def related(count: int, neighbours: dict[int, dict[int, float]]) -> Items:
    items = Items()
    items.grow(count)
    for ordinal, others in neighbours.items():
        names = np.full((1, NEIGHBOURS), NO_NEIGHBOUR, U32)
        weights = np.zeros((1, NEIGHBOURS), np.float32)
        names[0, : len(others)], weights[0, : len(others)] = list(others), list(others.values())
        items.set_neighbours(ordinals(ordinal), names, weights)
    return items


def test_bought_together_adds_up_over_the_products():
    items = related(6, {0: {3: 0.5, 4: 0.9}, 1: {3: 0.6}})
    together, weights = bought_together(ordinals(0, 1, 77), items)
    assert together.ordinals.tolist() == [3, 4]
    assert weights.tolist() == pytest.approx([1.1, 0.9])
    assert set(together.sources.tolist()) == {COVISITATION}
    assert len(bought_together(ordinals(5), items)[0]) == 0


def popular_items(count: int, best: dict[int, float]) -> Items:
    items = Items()
    items.grow(count)
    for ordinal, value in best.items():
        row = items.features_NF[[ordinal]].copy()
        row[0, COLUMN["log_purchases_7d"]] = value
        items.set_features(ordinals(ordinal), row)
    return items


def test_the_most_popular_of_the_allowed_come_first_and_ties_by_ordinal():
    items = popular_items(9, {7: 5.0, 3: 4.0, 8: 6.0})
    allowed = np.ones(9, np.bool_)
    allowed[8] = False
    assert popular_among(allowed, items, 4).ordinals.tolist() == [7, 3, 0, 1]
    assert popular_among(np.zeros(9, np.bool_), items, 4).ordinals.tolist() == []
    assert popular_among(np.ones(2, np.bool_), items, 4).ordinals.tolist() == [0, 1]


def selection(mask: np.ndarray, on_page: np.ndarray, wanted: int, limit: int = 100) -> Selection:
    return Selection(Allowed(mask, b"", int(mask.sum())), on_page, wanted, limit)


def test_a_selection_leaves_out_the_page_and_is_filled_up_with_popular_ones():
    items = popular_items(6, {4: 5.0})
    wanted = selection(np.array([True, True, False, True, True, True]), ordinals(1), wanted=4)
    candidates = selected([Candidates.of(ordinals(0, 1, 2, 99), VECTOR)], wanted)
    assert candidates.ordinals.tolist() == [0]
    assert filled(candidates, wanted, items, 0).ordinals.tolist() == [0, 4, 3, 5]


def test_newest_first_has_each_item_once():
    history = History(ordinals(1, 2, 1, 3), np.array([1, 1, 1, 3], np.uint8), np.arange(4), np.zeros(4, np.uint8))
    assert newest_first(history, history.event_types != 3).tolist() == [1, 2]


def test_before_a_release_equal_scores_go_by_ordinal_and_a_given_order_stays():
    items, nobody = popular_items(5, {}), Person(History.empty(), 0)
    candidates = Candidates.of(ordinals(4, 2, 3), POPULAR)
    assert by_model(None, nobody, items, candidates).candidates.ordinals.tolist() == [2, 3, 4]
    given = as_given(None, nobody, items, candidates, np.array([3, 2, 1], np.float32))
    assert given.candidates.ordinals.tolist() == [4, 2, 3]
    assert given.is_scored


def test_the_feature_that_lifted_an_item_is_named_before_a_release():
    items = popular_items(5, {2: 5.0, 3: 1.0})
    ranked = by_model(None, Person(History.empty(), 0), items, Candidates.of(ordinals(2, 3), POPULAR))
    names = strongest_features(None, ranked.features, np.arange(2))
    assert names[0][0] == "relative_log_purchases_7d"
    assert strongest_features(None, ranked.features, np.arange(0)) == []


def test_found_by_both_beats_found_by_one():
    hits = Hits(ordinals(7, 8), np.array([0, 1], np.float32), 2)
    near = Neighbours(ordinals(8, 9), np.array([0.9, 0.8], np.float32), "main", 1)
    fused = fuse(hits, near)
    assert fused.candidates.ordinals.tolist() == [8, 7, 9]
    assert fused.scores[0] == pytest.approx(1 / 62 + 0.7 / 61)
    assert source_names(int(fused.candidates.sources[0])) == ["vector", "lexical"]
    assert len(fuse(Hits.none(), Neighbours.none()).candidates) == 0
