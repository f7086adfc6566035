"""Steps of equal work, and sequences read backwards."""

from __future__ import annotations

import numpy as np

from headrace.trainer.batches import batches, some_reversed
from headrace.trainer.sequences import Grown, Windows, windows_of

START_US = 1_300_000_000_000_000


def _windows(lengths: list[int]) -> Windows:
    people = []
    for person, length in enumerate(lengths):
        ordinals = (100 * person + np.arange(length)).astype(np.uint32)
        times = START_US + np.cumsum(np.arange(length)) * 1_000_000
        codes = np.ones(length, np.uint8)
        people.append(Grown(0, ordinals, codes, times, codes))
    return windows_of(people, 20)


def test_every_window_comes_once() -> None:
    windows = _windows([2, 3, 9, 4, 1, 7, 5])
    found = [int(row) for rows in batches(windows, 6, np.random.default_rng(1)) for row in rows]
    assert sorted(found) == list(range(7))


def test_steps_hold_about_as_many_targets_as_asked() -> None:
    windows = _windows([4] * 100)
    sizes = [windows.at(rows).targets() for rows in batches(windows, 40, np.random.default_rng(1))]
    assert max(sizes) <= 44
    assert sum(sizes) == windows.targets()


def test_another_seed_gives_another_order() -> None:
    windows = _windows([4] * 50)
    firsts = [[int(rows[0]) for rows in batches(windows, 20, np.random.default_rng(seed))] for seed in (1, 2)]
    assert firsts[0] != firsts[1]


def test_a_sequence_read_backwards_keeps_its_gaps() -> None:
    turned = some_reversed(_windows([4]), 1.0, np.random.default_rng(1))
    assert turned.ordinals_BW[0, :4].tolist() == [3, 2, 1, 0]
    assert np.diff(turned.times_us_BW[0, :4]).tolist() == [3_000_000, 2_000_000, 1_000_000]
    assert (turned.first_targets_B[0], turned.lengths_B[0]) == (1, 4)


def test_a_share_of_nothing_turns_nothing() -> None:
    windows = _windows([4, 5])
    assert some_reversed(windows, 0.0, np.random.default_rng(1)) is windows


def test_the_windows_given_are_left_as_they_were() -> None:
    windows = _windows([4, 5, 6])
    before = windows.ordinals_BW.copy()
    some_reversed(windows, 1.0, np.random.default_rng(1))
    np.testing.assert_array_equal(windows.ordinals_BW, before)
