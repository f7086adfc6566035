"""The last product events of every person, 14 bytes an event.

A person's events are one immutable byte string that is replaced as a whole, so that a reader on another thread
sees a history before or after an event, never in between, without a lock.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.model.events import EventCode
from headrace.model.history import History, is_customer

EVENT = np.dtype([("ordinal", "<u4"), ("time_us", "<i8"), ("event_type", "u1"), ("channel", "u1")])


class Histories:
    """Histories by user number; numbers are given in the order of first sight and never change."""

    def __init__(self, limit: int) -> None:
        self._limit_bytes = limit * EVENT.itemsize
        self._numbers: dict[str, int] = {}
        self._events: list[bytes] = []

    def __len__(self) -> int:
        return len(self._events)

    def number(self, user_key: str) -> int:
        """The person's number, given now when it is new."""
        number = self._numbers.setdefault(user_key, len(self._events))
        if number == len(self._events):
            self._events.append(b"")
        return number

    def known_number(self, user_key: str) -> int | None:
        return self._numbers.get(user_key)

    def append(self, user: int, ordinals: NDArray[np.int64], code: int, time_us: int, channel: int) -> None:
        """Adds one event for each item; the oldest go when there are more than the limit."""
        new = np.empty(len(ordinals), EVENT)
        new["ordinal"] = ordinals
        new["time_us"] = time_us
        new["event_type"] = code
        new["channel"] = channel
        self._events[user] = (self._events[user] + new.tobytes())[-self._limit_bytes :]

    def has_bought(self, user: int, ordinals: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the items the person's history holds a purchase of."""
        events = np.frombuffer(self._events[user], EVENT)
        bought = set(events["ordinal"][events["event_type"] == EventCode.PURCHASE].tolist())
        return np.array([ordinal in bought for ordinal in ordinals.tolist()], np.bool_)

    def has_bought_any(self, user: int) -> bool:
        """Whether the person's history holds a purchase."""
        return bool((np.frombuffer(self._events[user], EVENT)["event_type"] == EventCode.PURCHASE).any())

    def take_back(self, user: int, ordinals: NDArray[np.int64], not_after_us: int) -> list[tuple[int, int]]:
        """Marks the newest purchase of each item as removed; (item, time of the purchase) of those found."""
        events = np.frombuffer(self._events[user], EVENT).copy()
        bought = (events["event_type"] == EventCode.PURCHASE) & (events["time_us"] <= not_after_us)
        taken: list[tuple[int, int]] = []
        for ordinal in ordinals.tolist():
            places = np.flatnonzero(bought & (events["ordinal"] == ordinal))
            if len(places):
                events["event_type"][places[-1]] = EventCode.REMOVE
                taken.append((ordinal, int(events["time_us"][places[-1]])))
        self._events[user] = events.tobytes()
        return taken

    def bytes_of(self, user: int) -> bytes:
        """One person's events as they are held."""
        return self._events[user]

    def of(self, user: int) -> History:
        return history_of(self._events[user])

    def keys(self) -> list[str]:
        """User keys by number."""
        return list(self._numbers)

    def columns(self) -> Columns:
        # the strings are immutable: a copy of the list is a copy of the state
        keys = [key.encode() for key in self._numbers]
        return {**packed("users.keys", keys), **packed("users.events", self._events)}

    def restore(self, columns: Columns) -> None:
        self._numbers = {key.decode(): number for number, key in enumerate(unpacked("users.keys", columns))}
        self._events = unpacked("users.events", columns)


def history_of(data: bytes, user_key: str = "") -> History:
    """A history from the bytes that `Histories` holds for `user_key`."""
    events = np.frombuffer(data, EVENT)
    return History(
        np.ascontiguousarray(events["ordinal"]),
        np.ascontiguousarray(events["event_type"]),
        np.ascontiguousarray(events["time_us"]),
        np.ascontiguousarray(events["channel"]),
        is_customer(user_key),
    )
