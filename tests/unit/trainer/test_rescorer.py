"""Places of the blend's list put in order by what all sources said."""

from __future__ import annotations

import numpy as np
import torch

from headrace.trainer.rescorer import Rescorer, Shortlist

STATES, PLACES, SOURCES, KINDS = 400, 8, 3, 2


def _rescorer() -> Rescorer:
    torch.manual_seed(1)
    return Rescorer(contexts=2, sources=SOURCES, kinds=KINDS)


def _lists(seed: int) -> Shortlist:
    """What comes is the one item that the first two sources both name; each names four more that the other does not."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, PLACES, STATES)
    chances = np.zeros((STATES, PLACES, SOURCES), np.float32)
    first = rng.random((STATES, PLACES)) < 0.5
    chances[..., 0], chances[..., 1] = first * 0.3, ~first * 0.3
    chances[np.arange(STATES), places, :2] = 0.2
    chances[..., 2] = 0.1
    mixed = np.sort(rng.random((STATES, PLACES)).astype(np.float32), axis=1)[:, ::-1].copy()
    alike = rng.random((STATES, PLACES, KINDS)).astype(np.float32)
    return Shortlist(mixed, chances, alike, rng.integers(0, 2, STATES), places)


def test_before_it_learned_anything_the_mixture_s_order_stays() -> None:
    lists = _lists(2)
    np.testing.assert_array_equal(_rescorer().ranks(lists), lists.places_P + 1)


def test_equal_places_keep_their_order() -> None:
    lists = _lists(2)
    lists.mixed_PM[:] = 0.5
    np.testing.assert_array_equal(_rescorer().ranks(lists), lists.places_P + 1)


def test_it_learns_that_what_two_sources_name_comes() -> None:
    rescorer = _rescorer()
    for seed in range(20):
        rescorer.learn(_lists(seed))
    assert (rescorer.ranks(_lists(100)) == 1).mean() > 0.95


def test_what_is_in_no_place_has_no_rank_and_teaches_nothing() -> None:
    rescorer, lists = _rescorer(), _lists(3)
    lists.places_P[:] = -1
    before = {name: value.copy() for name, value in rescorer.arrays().items() if name.startswith("weights")}
    rescorer.learn(lists)
    assert not rescorer.ranks(lists).any()
    after = rescorer.arrays()
    assert all(np.array_equal(after[name], value) for name, value in before.items())


def test_what_must_not_be_ranked_comes_after_everything() -> None:
    rescorer = _rescorer()
    for seed in range(20):
        rescorer.learn(_lists(seed))
    lists = _lists(100)
    lists.mixed_PM[np.arange(STATES), lists.places_P] = -1
    # equal to none: all others stand before it
    np.testing.assert_array_equal(rescorer.ranks(lists), PLACES)


def test_a_restored_one_goes_on_in_the_same_way() -> None:
    first, second = _rescorer(), Rescorer(contexts=2, sources=SOURCES, kinds=KINDS)
    first.learn(_lists(4))
    second.restore({name: value.copy() for name, value in first.arrays().items()})
    for rescorer in (first, second):
        rescorer.learn(_lists(5))
    for name, value in first.arrays().items():
        np.testing.assert_array_equal(value, second.arrays()[name], err_msg=name)
