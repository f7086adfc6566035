"""What a release must pass at load, and what a pair of judgements says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.items import Items
from headrace.model.ranker_network import RankerNetwork, RankerShape
from headrace.model.serving_model import ServingModel
from headrace.model.text.ngrams import HashedNgramEncoder
from headrace.model.towers import Towers, TowerShape
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.gate_zero import GateZero, RefusedError, unsigned
from headrace.ranker.paired import Judgement, compared
from headrace.ranker.vectors import Vectors

GATE = GateZero(most_times_slower=3.0, check_signature=unsigned)


def model(hidden: int) -> ServingModel:
    torch.manual_seed(0)
    towers = Towers(TowerShape(dimension=8, max_length=4, text_width=8, brand_buckets=4, category_buckets=4))
    ranker = RankerNetwork(RankerShape(len(CANDIDATE_FEATURES), hidden=hidden))
    return ServingModel("main", FEATURE_SCHEMA, towers, ranker, HashedNgramEncoder.fit(("red mug", "lamp"), 8, 0))


def test_a_release_that_is_much_slower_than_the_served_one_is_refused() -> None:
    catalogue, vectors, quick, slow = Catalogue(Items()), Vectors("main"), model(16), model(2_000)
    list(GATE.warm(quick, vectors, catalogue, quick))
    list(GATE.warm(slow, vectors, catalogue, None))
    with pytest.raises(RefusedError, match=r"a warm batch of 500 takes .* more than 3 times the served release's"):
        list(GATE.warm(slow, vectors, catalogue, quick))


def judgement(*scores: float, likeness: tuple[float, ...] | None = None, clicks: float = 0.1) -> Judgement:
    scored = np.array(scores, np.float32)
    likenesses = None if likeness is None else np.array(likeness, np.float32)
    return Judgement(scored, likenesses, np.full(len(scored), clicks, np.float32), ms=2.0)


def test_the_same_judgement_twice_is_a_perfect_pair() -> None:
    sums = compared(judgement(3, 1, 2, likeness=(1, 2, 3)), judgement(3, 1, 2, likeness=(1, 2, 3)))
    assert (sums.pairs, sums.sum_overlap_at_10, sums.sum_overlap_at_20) == (1, 1, 1)
    assert sums.sum_rank_correlation == pytest.approx(1)
    assert sums.sum_tower_correlation == pytest.approx(1)


def test_the_opposite_order_shares_nothing_of_the_better_half() -> None:
    scores = np.arange(8.0)
    sums = compared(judgement(*-scores), judgement(*scores))
    assert (sums.sum_overlap_at_10, sums.sum_overlap_at_20) == (0, 0)
    assert sums.sum_rank_correlation == pytest.approx(-1)


def test_of_many_candidates_the_best_ten_and_twenty_count() -> None:
    scores = np.arange(100.0)
    # the best five change places with the twelfth and those after it
    moved = scores.copy()
    moved[95:], moved[84:89] = scores[84:89], scores[95:]
    sums = compared(judgement(*moved), judgement(*scores))
    assert (sums.sum_overlap_at_10, sums.sum_overlap_at_20) == (0.5, 1.0)


def test_only_the_order_counts_for_ranks_and_equal_scores_share_theirs() -> None:
    assert compared(judgement(1, 10, 100), judgement(1, 2, 3)).sum_rank_correlation == pytest.approx(1)
    # ranks 1.5, 1.5, 3 beside 1, 2, 3
    assert compared(judgement(0, 0, 1), judgement(1, 2, 3)).sum_rank_correlation == pytest.approx(0.8660254)
    assert compared(judgement(5, 5, 5), judgement(1, 2, 3)).sum_rank_correlation == 0


def test_towers_are_alike_where_neither_knows_a_place_and_not_where_one_does() -> None:
    nowhere, somewhere = judgement(1, 2), judgement(1, 2, likeness=(1, 2))
    assert compared(nowhere, nowhere).sum_tower_correlation == 1
    assert compared(nowhere, somewhere).sum_tower_correlation == 0


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_counted_and_not_added(number: float) -> None:
    for faulty in (judgement(1, number), judgement(1, 2, likeness=(1, number)), judgement(1, 2, clicks=number)):
        sums = compared(faulty, judgement(1, 2))
        assert (sums.pairs, sums.not_finite, sums.sum_ms) == (0, 1, 0)


def test_sums_add_up() -> None:
    one = compared(judgement(1, 2, clicks=0.3), judgement(1, 2, clicks=0.1))
    both = one.plus(one)
    assert both.pairs == 2
    assert both.sum_click_probability == pytest.approx(0.6)
    assert both.sum_baseline_click_probability == pytest.approx(0.2)
    assert (both.sum_ms, both.sum_baseline_ms) == (4.0, 4.0)
