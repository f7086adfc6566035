"""The last events of every person, folded from the log, and the stretches of them that teach.

U people, H kept history, L tower length, B windows, W events of a window, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.model.events import COUNTED_CODES
from headrace.model.growing import grown
from headrace.model.history import VISIT_GAP_US
from headrace.model.towers import event_gaps, gap_buckets
from headrace.runtime.erasures import Erasure
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.arrays import Arrays, packed_json, unpacked_json
from headrace.trainer.records import Events

_COLUMNS = (("ordinals", np.uint32), ("event_types", np.uint8), ("times_us", np.int64), ("channels", np.uint8))


@dataclass(frozen=True, slots=True)
class Grown:
    """One person's events: `old` of them were known before, the others are new."""

    old: int
    ordinals: NDArray[np.uint32]
    event_types: NDArray[np.uint8]
    times_us: NDArray[np.int64]
    channels: NDArray[np.uint8]
    # a keyed hash of whose they are; 0 for nobody's who can be forgotten
    owner: int = 0

    def __len__(self) -> int:
        return len(self.ordinals)


class Sequences:
    """The last `kept` events of each person, as columns."""

    def __init__(self, kept: int, privacy: Privacy = UNKEYED) -> None:
        self._kept = kept
        self._privacy = privacy
        self._users: dict[str, int] = {}
        # by number, which is never given again; "" where the person was forgotten
        self._keys: list[str] = []
        self._owners_U = np.zeros(0, np.int64)
        self._columns: dict[str, NDArray[Any]] = {name: np.zeros((0, kept), kind) for name, kind in _COLUMNS}
        # events ever, of which the last `kept` are here
        self._totals_U = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._users)

    def fold(self, events: Events) -> list[Grown]:
        """Takes in events; everybody that did something, with what they did before."""
        users = np.array([self._number(key) for key in events.user_keys], np.int64)
        for name in self._columns:
            self._columns[name] = grown(self._columns[name], len(self._keys))
        self._totals_U = grown(self._totals_U, len(self._keys))
        self._grow_owners()
        order = np.argsort(events.users, kind="stable")
        bounds = np.searchsorted(events.users[order], np.arange(len(users) + 1))
        new = {name: getattr(events, name)[order] for name, _ in _COLUMNS}
        return [self._extend(int(user), new, bounds[i], bounds[i + 1]) for i, user in enumerate(users)]

    def _number(self, key: str) -> int:
        number = self._users.setdefault(key, len(self._keys))
        if number == len(self._keys):
            self._keys.append(key)
        return number

    def _grow_owners(self) -> None:
        known = len(self._owners_U)
        new = [self._privacy.owner(key) for key in self._keys[known:]]
        if new:
            self._owners_U = np.concatenate([self._owners_U, np.array(new, np.int64)])

    def erase(self, erasure: Erasure) -> int:
        """Forgets people with their keys; how many."""
        named = np.flatnonzero(np.isin(self._owners_U, list(erasure.owners))).tolist()
        users = [user for user in named if erasure.names(self._privacy, self._keys[user])]
        for user in users:
            del self._users[self._keys[user]]
            self._keys[user] = ""
            for column in (*self._columns.values(), self._owners_U, self._totals_U):
                column[user] = 0
        return len(users)

    def _extend(self, user: int, new: Mapping[str, NDArray[Any]], start: int, end: int) -> Grown:
        total = int(self._totals_U[user])
        old = min(total, self._kept)
        whole = {name: np.concatenate([self._columns[name][user, :old], new[name][start:end]]) for name in new}
        kept = min(old + end - start, self._kept)
        for name, column in whole.items():
            self._columns[name][user, :kept] = column[-kept:] if kept else column
        self._totals_U[user] = total + end - start
        return Grown(old=old, owner=int(self._owners_U[user]), **whole)

    def arrays(self) -> Arrays:
        count = len(self._keys)
        columns = {name: column[:count] for name, column in self._columns.items()}
        people: Arrays = {"users": packed_json(self._keys), "owners_U": self._owners_U}
        return columns | people | {"totals_U": self._totals_U[:count]}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._keys = unpacked_json(arrays["users"])
        self._users = {key: number for number, key in enumerate(self._keys) if key}
        self._owners_U = arrays["owners_U"].copy()
        self._columns = {name: arrays[name].copy() for name, _ in _COLUMNS}
        self._totals_U = arrays["totals_U"].copy()


@dataclass(frozen=True, slots=True)
class Windows:
    """B stretches of events, left-aligned; those from `first_target` on are to be predicted."""

    ordinals_BW: NDArray[np.uint32]
    event_types_BW: NDArray[np.uint8]
    times_us_BW: NDArray[np.int64]
    channels_BW: NDArray[np.uint8]
    lengths_B: NDArray[np.int32]
    first_targets_B: NDArray[np.int32]
    # keyed hashes of whose they are; 0 for nobody's who can be forgotten
    owners_B: NDArray[np.int64]

    @classmethod
    def empty(cls, rows: int, width: int) -> Windows:
        return cls(
            np.zeros((rows, width), np.uint32),
            np.zeros((rows, width), np.uint8),
            np.zeros((rows, width), np.int64),
            np.zeros((rows, width), np.uint8),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int64),
        )

    @classmethod
    def concatenated(cls, parts: Sequence[Windows]) -> Windows:
        """All windows of at least one part, in order."""
        return cls(*(np.concatenate(columns) for columns in zip(*(part.columns() for part in parts), strict=True)))

    def __len__(self) -> int:
        return len(self.lengths_B)

    def codes(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Event types, channels and gaps of the first `length` events, as the user tower reads them."""
        return (
            torch.from_numpy(self.event_types_BW[:, :length].astype(np.int64)),
            torch.from_numpy(self.channels_BW[:, :length].astype(np.int64)),
            torch.from_numpy(event_gaps(self.times_us_BW[:, :length])),
        )

    def targets(self) -> int:
        """Events to be predicted."""
        return int((self.lengths_B - self.first_targets_B).sum())

    def columns(self) -> tuple[NDArray[Any], ...]:
        return (
            self.ordinals_BW,
            self.event_types_BW,
            self.times_us_BW,
            self.channels_BW,
            self.lengths_B,
            self.first_targets_B,
            self.owners_B,
        )

    def at(self, rows: NDArray[np.int64]) -> Windows:
        """Some of the windows, copied."""
        return Windows(*(column[rows] for column in self.columns()))

    def joined(self, other: Windows) -> Windows:
        return Windows.concatenated([self, other])


@dataclass(frozen=True, slots=True)
class Pairs:
    """What followed what: in window `rows`, state `states` (events seen) was followed by `targets`."""

    rows_P: NDArray[np.int64]
    states_P: NDArray[np.int64]
    targets_P: NDArray[np.int64]
    waits_P: NDArray[np.int64]  # gap buckets
    # what followed at once, not what a later visit began with
    is_next_P: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows_P)

    def at(self, chosen: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Pairs:
        """Some of the pairs."""
        return Pairs(
            self.rows_P[chosen],
            self.states_P[chosen],
            self.targets_P[chosen],
            self.waits_P[chosen],
            self.is_next_P[chosen],
        )

    def followed(self) -> Pairs:
        """What came next after at least one event."""
        return self.at(self.is_next_P & (self.states_P > 0))


def windows_of(people: Sequence[Grown], length: int) -> Windows:
    """Windows that cover every new event once as a target, each with at least length / 2 events before it.

    A window holds at most `length` + 1 events: the tower sees all but the last.
    """
    cuts = [(person, cut) for person in people for cut in _cuts(person, length)]
    windows = Windows.empty(len(cuts), length + 1)
    for row, (person, (start, first, end)) in enumerate(cuts):
        size = end - start
        windows.ordinals_BW[row, :size] = person.ordinals[start:end]
        windows.event_types_BW[row, :size] = person.event_types[start:end]
        windows.times_us_BW[row, :size] = person.times_us[start:end]
        windows.channels_BW[row, :size] = person.channels[start:end]
        windows.lengths_B[row], windows.first_targets_B[row] = size, first - start
        windows.owners_B[row] = person.owner
    return windows


def _cuts(person: Grown, length: int) -> Iterator[tuple[int, int, int]]:
    step = max(1, length // 2)
    for first in range(person.old, len(person), step):
        end = min(first + step, len(person))
        yield max(0, end - 1 - length), first, end


def pairs_of(windows: Windows) -> Pairs:
    """Two lessons an event: what came just before it, and how things stood when its visit began.

    The first teaches what goes together, the second what a person comes back for (a first visit has no
    such lesson). Events that take something back are seen but never predicted.
    """
    width = windows.ordinals_BW.shape[1]
    places_W = np.arange(width)
    is_target = (places_W >= windows.first_targets_B[:, None]) & (places_W < windows.lengths_B[:, None])
    is_target &= np.isin(windows.event_types_BW, [int(code) for code in COUNTED_CODES])
    begins = np.zeros(windows.times_us_BW.shape, np.int64)
    begins[:, 1:] = np.where(np.diff(windows.times_us_BW, axis=1) > VISIT_GAP_US, places_W[1:], 0)
    begins = np.maximum.accumulate(begins, axis=1)
    rows, places = np.nonzero(is_target)
    visits = begins[rows, places]
    is_return = (visits < places) & (visits > 0)
    rows_P = np.concatenate([rows, rows[is_return]])
    states_P = np.concatenate([places, visits[is_return]])
    events_P = np.concatenate([places, places[is_return]])
    times = windows.times_us_BW
    gaps_P = times[rows_P, events_P] - times[rows_P, np.maximum(states_P - 1, 0)]
    waits_P = np.where(states_P > 0, gap_buckets(gaps_P), 0)
    targets_P = windows.ordinals_BW[rows_P, events_P].astype(np.int64)
    return Pairs(rows_P, states_P, targets_P, waits_P, np.arange(len(rows_P)) < len(rows))
