"""Where people stood just before their newest event, and what it was: what two releases' towers are compared by.

L events of a history, N items, P states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.events import COUNTED_CODES
from headrace.model.history import VISIT_GAP_US, History
from headrace.runtime.erasures import Erasure
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.queries import Lesson, SearchPairs
from headrace.trainer.records import Events, Searched

_COUNTED = frozenset(int(code) for code in COUNTED_CODES)
# an item, an event type, a time and a channel
_Act = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class State:
    """What somebody had done, and what they did next."""

    history: History
    now_us: int
    target: int


@dataclass(slots=True)
class _Person:
    owner: int
    acts: deque[_Act]
    # the events before the newest step within a visit, and that step
    before: tuple[_Act, ...] = ()
    step: _Act | None = None


class RecentStates:
    """The newest step of each of the newest `people`, the newest `items` that were met, and searches with their finds.

    One step a person, so that states are independent of each other.
    """

    def __init__(self, length: int, people: int, items: int, privacy: Privacy = UNKEYED) -> None:
        self._length = length
        self._most_people = people
        self._most_items = items
        self._privacy = privacy
        # those who did something last stand last
        self._people: dict[str, _Person] = {}
        self._items: dict[int, None] = {}
        self._searches = SearchPairs(privacy)

    def fold(self, searches: Sequence[Searched], events: Events) -> None:
        """Takes in what was logged next."""
        self._searches.fold(searches, events)
        rows = zip(
            events.users.tolist(),
            events.ordinals.tolist(),
            events.event_types.tolist(),
            events.times_us.tolist(),
            events.channels.tolist(),
            strict=True,
        )
        for user, *act in rows:
            self._note(events.user_keys[user], (act[0], act[1], act[2], act[3]))
        _shorten(self._people, self._most_people)
        _shorten(self._items, self._most_items)

    def _note(self, key: str, act: _Act) -> None:
        person = self._people.pop(key, None) or _Person(self._privacy.owner(key), deque(maxlen=self._length))
        self._people[key] = person
        self._items.pop(act[0], None)
        self._items[act[0]] = None
        is_step = bool(person.acts) and 0 <= act[2] - person.acts[-1][2] <= VISIT_GAP_US
        # what is looked at once more is foreseen by looking back
        if is_step and act[1] in _COUNTED and all(act[0] != seen[0] for seen in person.acts):
            person.before, person.step = tuple(person.acts), act
        person.acts.append(act)

    def erase(self, erasure: Erasure) -> None:
        """Forgets people."""
        self._searches.erase(erasure)
        self._people = {key: person for key, person in self._people.items() if person.owner not in erasure.owners}

    def states(self) -> list[State]:
        """One a person who went on within a visit to something new to them, those who did last at the end."""
        return [
            State(_history(person.before), person.step[2], person.step[0])
            for person in self._people.values()
            if person.step is not None
        ]

    def items(self) -> NDArray[np.uint32]:
        """Those that were met of late, ascending."""
        return np.sort(np.array(list(self._items), np.uint32))

    def searches(self, count: int) -> Lesson:
        """Up to `count` searches, and what was found by each; drawn by a fixed seed."""
        return self._searches.sample(count, np.random.default_rng(0))


def _history(acts: Sequence[_Act]) -> History:
    ordinals, event_types, times_us, channels = zip(*acts, strict=True)
    return History(
        np.array(ordinals, np.uint32),
        np.array(event_types, np.uint8),
        np.array(times_us, np.int64),
        np.array(channels, np.uint8),
    )


def _shorten(newest_last: dict[str, _Person] | dict[int, None], most: int) -> None:
    for key in list(newest_last)[: max(0, len(newest_last) - most)]:
        del newest_last[key]  # type: ignore[arg-type]
