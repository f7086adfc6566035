"""Windows, pairs and replay."""

from __future__ import annotations

import numpy as np

from headrace.trainer.records import Events
from headrace.trainer.replay import Reservoir
from headrace.trainer.sequences import Grown, Sequences, Windows, pairs_of, windows_of

_MINUTE = 60_000_000


def _events(
    ordinals: list[int], users: list[int] | None = None, start_us: int = 0, codes: list[int] | None = None
) -> Events:
    count = len(ordinals)
    users = users or [0] * count
    return Events(
        np.array(users),
        np.array(ordinals, np.uint32),
        np.array(codes or [1] * count, np.uint8),
        start_us + np.arange(count) * _MINUTE,
        np.zeros(count, np.uint8),
        tuple(f"u:{user}" for user in range(max(users) + 1)),
        ("",) * count,
    )


def _person(count: int, old: int, times_us: list[int] | None = None) -> Grown:
    times = np.array(times_us) if times_us else np.arange(count) * _MINUTE
    codes = np.ones(count, np.uint8)
    return Grown(old, np.arange(count, dtype=np.uint32), codes, times, codes)


def _told(windows: Windows) -> set[tuple[int, int]]:
    """(events seen, item that followed) of a single window whose items count from 0."""
    pairs = pairs_of(windows)
    return set(zip(pairs.states_P.tolist(), pairs.targets_P.tolist(), strict=True))


def test_events_of_interleaved_people_are_told_apart() -> None:
    first, second = Sequences(4).fold(_events([1, 2, 3, 4], [0, 1, 0, 1]))
    assert (first.ordinals.tolist(), second.ordinals.tolist()) == ([1, 3], [2, 4])


def test_only_the_newest_events_are_kept() -> None:
    sequences = Sequences(3)
    sequences.fold(_events([1, 2, 3, 4, 5]))
    [grown] = sequences.fold(_events([6]))
    assert grown.ordinals.tolist() == [3, 4, 5, 6]
    assert grown.old == 3


def test_restored_sequences_go_on() -> None:
    sequences, copy = Sequences(3), Sequences(3)
    sequences.fold(_events([1, 2]))
    copy.restore(sequences.arrays())
    assert copy.fold(_events([3]))[0].ordinals.tolist() == [1, 2, 3]


def test_every_new_event_is_a_target_in_exactly_one_window() -> None:
    windows = windows_of([_person(57, 20)], 10)
    targets = [
        at
        for row in range(len(windows))
        for at in windows.ordinals_BW[row, windows.first_targets_B[row] : windows.lengths_B[row]].tolist()
    ]
    assert targets == list(range(20, 57))
    assert all(windows.first_targets_B >= 5)


def test_an_event_is_learned_from_what_came_before_and_from_the_start_of_its_visit() -> None:
    day = 24 * 60 * _MINUTE
    windows = windows_of([_person(4, 2, [0, _MINUTE, day, day + _MINUTE])], 10)
    # item 2 begins the visit: seen 2; item 3 follows it, and belongs to the visit that began after 2
    assert _told(windows) == {(2, 2), (3, 3), (2, 3)}


def test_a_visit_that_began_before_the_window_teaches_no_return() -> None:
    windows = windows_of([_person(12, 11)], 4)
    assert len(_told(windows)) == 1


def test_the_first_event_of_a_person_follows_the_beginning() -> None:
    windows = windows_of([_person(1, 0)], 4)
    pairs = pairs_of(windows)
    assert (pairs.states_P.tolist(), pairs.targets_P.tolist(), pairs.waits_P.tolist()) == ([0], [0], [0])


def test_what_is_taken_back_is_never_predicted() -> None:
    [person] = Sequences(4).fold(_events([5, 6], codes=[1, 3]))
    assert 6 not in pairs_of(windows_of([person], 4)).targets_P.tolist()


def test_the_reservoir_is_bounded_and_even() -> None:
    reservoir = Reservoir(50, 5)
    rng = np.random.default_rng(1)
    for start in range(0, 1000, 20):
        windows = windows_of([_person(2, 0)] * 20, 4)
        windows.times_us_BW[:, 0] = np.arange(start, start + 20)
        reservoir.add(windows, rng)
    kept = reservoir.sample(2_000, rng).times_us_BW[:, 0]
    assert len(reservoir) == 50
    assert 400 < kept.mean() < 600


def test_an_empty_reservoir_gives_nothing() -> None:
    assert len(Reservoir(5, 3).sample(4, np.random.default_rng(1))) == 0
