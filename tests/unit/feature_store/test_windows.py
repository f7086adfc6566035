"""Windowed counts against the true sliding count: bursts, events out of order, up to two minutes late."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.feature_store.windows import BUCKETS, WindowedCounts
from headrace.model.items import WINDOWS_US

START_US = 1_700_000_000_000_000
LATEST_US = 120_000_000


def _stream(seed: int, span_us: int, count: int, is_bursty: bool) -> tuple[np.ndarray, np.ndarray]:
    """Times of events in the order of arrival, and the clock (the newest time so far) at each."""
    chance = np.random.default_rng(seed)
    if is_bursty:
        # a burst is a hundredth of the span, and most events are in one of a few
        bursts = chance.uniform(0, span_us, 6)
        at = bursts[chance.integers(0, 6, count)] + chance.uniform(0, span_us / 100, count)
        at = np.where(chance.random(count) < 0.3, chance.uniform(0, span_us, count), at)
    else:
        at = np.cumsum(chance.exponential(span_us / count, count))
    arrived = np.sort(at)
    late = np.where(chance.random(count) < 0.3, chance.uniform(0, LATEST_US, count), 0)
    times_us = START_US + (arrived - late).astype(np.int64)
    return times_us, np.maximum.accumulate(times_us)


@pytest.mark.parametrize("window", WINDOWS_US)
@given(seed=st.integers(0, 1 << 30), is_bursty=st.booleans(), windows=st.floats(0.2, 4))
@settings(max_examples=12, deadline=None)
def test_a_count_lies_between_those_of_63_64ths_of_the_window_and_the_window(
    window: str, seed: int, is_bursty: bool, windows: float
) -> None:
    length_us, place = WINDOWS_US[window], list(WINDOWS_US).index(window)
    times_us, clocks_us = _stream(seed, int(windows * length_us), 1_200, is_bursty)
    counts = WindowedCounts()
    for number, (time_us, clock_us) in enumerate(zip(times_us.tolist(), clocks_us.tolist(), strict=True)):
        counts.advance(clock_us)
        counts.add(np.array([0]), 0, time_us, clock_us)
        if number % 17:
            continue
        seen = times_us[: number + 1]
        most = int((seen > clock_us - length_us).sum())
        least = int((seen > clock_us - length_us + length_us // BUCKETS).sum())
        assert least <= counts.totals_RW[0, 3 * place] <= most


@pytest.mark.parametrize("window", WINDOWS_US)
def test_an_even_stream_is_counted_within_two_in_a_hundred(window: str) -> None:
    """A Poisson stream of 20,000 events a window: what chance adds to the granularity's 1/64 is small."""
    length_us, place = WINDOWS_US[window], list(WINDOWS_US).index(window)
    times_us, clocks_us = _stream(11, 3 * length_us, 60_000, is_bursty=False)
    counts, rows, kinds = WindowedCounts(), np.zeros(100, np.int64), np.zeros(100, np.int64)
    worst = 0.0
    for start in range(0, len(times_us), 100):
        end = start + 100
        counts.add_many(rows, kinds, times_us[start:end], int(clocks_us[end - 1]))
        true = int((times_us[:end] > clocks_us[end - 1] - length_us).sum())
        if clocks_us[end - 1] > START_US + length_us:
            worst = max(worst, abs(int(counts.totals_RW[0, 3 * place]) - true) / true)
    assert 0 < worst <= 0.02


def test_a_late_event_counts_in_its_own_place() -> None:
    """It leaves with the events of its time, not with those that it came with."""
    minute_us = 60_000_000
    counts, row = WindowedCounts(), np.array([0])
    counts.advance(START_US)
    counts.add(row, 0, START_US, START_US)
    counts.add(row, 0, START_US - 2 * minute_us, START_US)
    assert counts.totals_RW[0, 0] == 2
    counts.advance(START_US + 3 * minute_us)
    assert counts.totals_RW[0, 0] == 1
    # older than the window: it is not counted there, but in the longer ones
    counts.add(row, 0, START_US - 3 * minute_us, START_US + 3 * minute_us)
    assert counts.totals_RW[0, [0, 3]].tolist() == [1, 3]


EVENT = st.tuples(
    st.integers(0, 4), st.integers(0, 2), st.sampled_from([0, 1, 40, 3_000, 90_000, 700_000]), st.integers(0, 150)
)


@given(events=st.lists(EVENT, max_size=120), cuts=st.lists(st.integers(0, 120), max_size=5))
@settings(max_examples=60, deadline=None)
def test_batches_are_equal_to_one_by_one(events: list[tuple[int, int, int, int]], cuts: list[int]) -> None:
    rows, kinds, steps_s, late_s = (
        (np.array(column, np.int64) for column in zip(*events, strict=True)) if events else (np.zeros((4, 0), np.int64))
    )
    times_us = START_US + (np.cumsum(steps_s) - late_s) * 1_000_000
    clocks_us = np.maximum.accumulate(times_us)
    single, batched = WindowedCounts(), WindowedCounts()
    for row, kind, time_us, clock_us in zip(rows, kinds, times_us.tolist(), clocks_us.tolist(), strict=True):
        single.advance(clock_us)
        single.add(np.array([row]), int(kind), time_us, clock_us)
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for start, end in itertools.pairwise(edges):
        batched.add_many(rows[start:end], kinds[start:end], times_us[start:end], int(clocks_us[end - 1]))
    ours, theirs = batched.columns(5), single.columns(5)
    for name in theirs:
        np.testing.assert_array_equal(ours[name][: len(theirs[name])], theirs[name])
