"""The last product events of every person, 14 bytes an event, and before them what purchases are older.

A person's purchases decide what counts as a repeat and what can be cancelled; so the newest of them stay (as many as
there are events in a history) when they have left the newest events. Of a person who is in another shard, nothing
but purchases is kept: they say the same of items there as here.

A person's events are one immutable byte string that is replaced as a whole, so that a reader on another thread
sees a history before or after an event, never in between, without a lock. Those who changed since the last
snapshot are held here, and those who were met lately; everybody else rests in a tier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.user_tier import UserTier, digest_of
from headrace.model.events import EventCode
from headrace.model.history import History, is_customer

EVENT = np.dtype([("ordinal", "<u4"), ("time_us", "<i8"), ("event_type", "u1"), ("channel", "u1")])


@dataclass(frozen=True, slots=True)
class HistoriesCopy:
    """Everybody's history at one moment; good until the tier stores again."""

    held: Mapping[str, bytes]
    changed: frozenset[str]
    cutoff_us: int
    tier: UserTier

    def store(self, offset: int) -> None:
        """Brings the tier to this moment."""
        rows = {user_key: live(self.held[user_key], self.cutoff_us) for user_key in self.changed}
        self.tier.store(offset, rows, self.cutoff_us)

    def digest(self) -> str:
        """The same wherever a history is, and whether or not those who were away too long have been removed."""
        return digest_of((key, row) for key, events in self._all() if (row := live(events, self.cutoff_us)))

    def _all(self) -> Iterator[tuple[str, bytes]]:
        yield from self.held.items()
        yield from ((key, events) for key, events in self.tier.rows() if key not in self.held)


class Histories:
    """Histories by user key. Events that are not newer than `cutoff_us` are as good as never seen."""

    def __init__(self, limit: int, tier: UserTier) -> None:
        self.limit_bytes = limit * EVENT.itemsize
        self._tier = tier
        self.cutoff_us = 0
        self._held: dict[str, bytes] = {}
        # everybody who is held is in one of these: changed since the last copy was begun, in that copy, or as the
        # tier has it, in the order in which they were changed or met
        self._changed: dict[str, None] = {}
        self._storing: dict[str, None] = {}
        self._clean: dict[str, None] = {}
        # held, and unknown to the tier
        self._unstored: set[str] = set()

    def hold(self, user_keys: Iterable[str]) -> int:
        """Brings people here from the tier, by one question for all; how many it took. Needed before the rest."""
        missing = [user_key for user_key in dict.fromkeys(user_keys) if user_key not in self._held]
        if missing:
            rows = self._tier.fetch(missing)
            self._unstored.update(user_key for user_key in missing if user_key not in rows)
            self._clean.update(dict.fromkeys(missing))
            self._held.update((user_key, rows.get(user_key, b"")) for user_key in missing)
        return len(missing)

    def held_keys(self) -> Iterable[str]:
        return self._held

    def append(self, user_key: str, ordinals: NDArray[np.int64], code: int, time_us: int, channel: int) -> None:
        """Adds one event for each item; the oldest go when there are more than the limit, purchases last."""
        new = np.empty(len(ordinals), EVENT)
        new["ordinal"] = ordinals
        new["time_us"] = time_us
        new["event_type"] = code
        new["channel"] = channel
        self._put(user_key, kept(self.bytes_of(user_key) + new.tobytes(), self.limit_bytes))

    def _put(self, user_key: str, events: bytes) -> None:
        self._held[user_key] = events
        self._clean.pop(user_key, None)
        self._changed.pop(user_key, None)
        self._changed[user_key] = None

    def has_bought(self, user_keys: Sequence[str], ordinals: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of which of the items the person under these keys is known to have made a purchase."""
        bought = set(self._bought(user_keys)["ordinal"].tolist())
        return np.array([ordinal in bought for ordinal in ordinals.tolist()], np.bool_)

    def has_bought_any(self, user_keys: Sequence[str]) -> bool:
        """Whether a purchase of the person under these keys is known."""
        return len(self._bought(user_keys)) > 0

    def _bought(self, user_keys: Sequence[str]) -> NDArray[np.void]:
        events = np.frombuffer(b"".join(map(self.bytes_of, user_keys)), EVENT)
        bought: NDArray[np.void] = events[events["event_type"] == EventCode.PURCHASE]
        return bought

    def take_back(self, user_key: str, ordinals: NDArray[np.int64], not_after_us: int) -> list[tuple[int, int]]:
        """Marks the newest purchase of each item as removed; (item, time of the purchase) of those found."""
        events = np.frombuffer(self.bytes_of(user_key), EVENT).copy()
        bought = (events["event_type"] == EventCode.PURCHASE) & (events["time_us"] <= not_after_us)
        taken: list[tuple[int, int]] = []
        for ordinal in ordinals.tolist():
            places = np.flatnonzero(bought & (events["ordinal"] == ordinal))
            if len(places):
                events["event_type"][places[-1]] = EventCode.REMOVE
                taken.append((ordinal, int(events["time_us"][places[-1]])))
        if taken:
            self._put(user_key, events.tobytes())
        return taken

    def erase(self, user_key: str) -> None:
        """The person was never here; the tier learns it at the next snapshot."""
        self._put(user_key, b"")

    def bytes_of(self, user_key: str) -> bytes:
        """The events of one who is held, older purchases first."""
        return live(self._held[user_key], self.cutoff_us)

    def joined_bytes_of(self, user_keys: Sequence[str]) -> bytes:
        """The newest events of one person under several keys, all of whom are held."""
        return joined([self.bytes_of(user_key) for user_key in user_keys], self.limit_bytes)

    def held_bytes(self, user_key: str) -> bytes | None:
        """The same from any thread; None for one who rests in the tier, or was never seen."""
        events = self._held.get(user_key)
        return None if events is None else live(events, self.cutoff_us)

    @property
    def held_count(self) -> int:
        return len(self._held)

    def count(self) -> int:
        """People with a history, wherever it is."""
        return len(self._tier) + sum(bool(self._held[user_key]) for user_key in self._unstored)

    def copy(self) -> HistoriesCopy:
        # the strings are immutable: a copy of the dictionary is a copy of the state
        changed = frozenset(self._changed | self._storing)
        return HistoriesCopy(dict(self._held), changed, self.cutoff_us, self._tier)

    def storing(self) -> None:
        """A copy of this moment is on its way to the tier."""
        self._storing |= self._changed
        self._changed = {}

    def stored(self, limit: int) -> None:
        """The tier has that copy for good. Those met longest ago leave while more than `limit` are held."""
        self._unstored.difference_update(self._storing)
        self._clean.update(dict.fromkeys(key for key in self._storing if key not in self._changed))
        self._storing = {}
        for user_key in list(islice(self._clean, max(0, len(self._held) - limit))):
            del self._clean[user_key], self._held[user_key]
            self._unstored.discard(user_key)

    def not_stored(self) -> None:
        """That copy did not get there."""
        self._changed = self._storing | self._changed
        self._storing = {}


def live(events: bytes, cutoff_us: int) -> bytes:
    """The events that are newer than `cutoff_us`, as bytes."""
    if cutoff_us <= 0 or not events:
        return events
    newer = (parsed := np.frombuffer(events, EVENT))["time_us"] > cutoff_us
    return events if newer.all() else parsed[newer].tobytes()


def kept(events: bytes, limit_bytes: int) -> bytes:
    """The newest events, and before them the purchases that are older, of as many purchases as there may be events."""
    if len(events) <= limit_bytes:
        return events
    limit, older = limit_bytes // EVENT.itemsize, np.frombuffer(events, EVENT)
    places = np.flatnonzero(older["event_type"] == EventCode.PURCHASE)[-limit:]
    return older[places[places < len(older) - limit]].tobytes() + events[-limit_bytes:]


def joined(histories: Sequence[bytes], limit_bytes: int) -> bytes:
    """Several histories as one, in the order of time; each keeps its own order, in which late events came."""
    given = [events[-limit_bytes:] for events in histories if events]
    if len(given) < 2:
        return given[0] if given else b""
    events = np.concatenate([np.frombuffer(part, EVENT) for part in given])
    moments = np.concatenate([np.maximum.accumulate(np.frombuffer(part, EVENT)["time_us"]) for part in given])
    return events[np.argsort(moments, kind="stable")].tobytes()[-limit_bytes:]


def newest_us(events: bytes) -> int:
    """When the newest of the events was; 0 of none."""
    return int(np.frombuffer(events, EVENT)["time_us"].max(initial=0))


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
