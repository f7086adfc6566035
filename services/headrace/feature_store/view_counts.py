"""The state of one declared view: a fold of facts of its own, the same one by one and in batches.

It names its entities itself (a category is the one that the item's document named last before the event), so that it
can be folded from the log beside the serving state and join it later.
"""

# N items, W windows, E counted events

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.feature_store.facts import Fact, ProductFact, UserAct
from headrace.feature_store.windowed_view import WindowedView
from headrace.feature_store.windows import WindowedCounts
from headrace.runtime.people_shards import holds_person
from headrace.runtime.shards import WHOLE, Shard

# an item's ordinal, a user key, the name of a category or brand, a channel
Key: TypeAlias = int | str

_NUMBERED = ("item", "channel")
_NAMING = {"category": "category", "brand": "brand"}


class ViewCounts:
    """Counts of a `view` over the facts so far; `offset` is that of the last one, `now_us` the log's time.

    Of people, it counts those of `shard`.
    """

    def __init__(self, view: WindowedView, shard: Shard = WHOLE) -> None:
        self.view = view
        self.shard = shard
        self.offset = 0
        self.now_us = 0
        self._event_types = frozenset(view.event_types)
        self._channels = frozenset(view.channels)
        self._naming = _NAMING.get(view.entity)
        self._rows: dict[Key, int] = {}
        # of items, where categories or brands are counted
        self._names: dict[int, str] = {}
        self._counts = WindowedCounts(view.windows_us, kinds=1)

    def apply(self, fact: Fact) -> None:
        """Folds one fact."""
        self.offset = fact.offset
        if isinstance(fact, ProductFact):
            self._name(fact)
        elif isinstance(fact, UserAct):
            if fact.time_us > self.now_us:
                self.now_us = fact.time_us
                self._counts.advance(fact.time_us)
            if rows := self._rows_of(fact):
                self._counts.add(np.array(rows, np.int64), 0, fact.time_us, self.now_us)

    def apply_many(self, facts: Iterable[Fact]) -> None:
        """Folds facts in the order of the log, by batches of NumPy: several times as fast as one by one."""
        rows: list[int] = []
        times_us: list[int] = []
        for fact in facts:
            self.offset = fact.offset
            if isinstance(fact, UserAct):
                self.now_us = max(self.now_us, fact.time_us)
                found = self._rows_of(fact)
                rows += found
                times_us += [fact.time_us] * len(found)
            elif isinstance(fact, ProductFact):
                self._name(fact)
        rows_E, times_us_E = np.array(rows, np.int64), np.array(times_us, np.int64)
        self._counts.add_many(rows_E, np.zeros(len(rows), np.int64), times_us_E, self.now_us)

    def _name(self, fact: ProductFact) -> None:
        # a deletion says nothing of what the item was
        if self._naming is not None and not fact.deleted:
            self._names[fact.ordinal] = getattr(fact, self._naming)

    def _rows_of(self, act: UserAct) -> list[int]:
        if act.event_type not in self._event_types or (self._channels and act.channel not in self._channels):
            return []
        rows = self._rows
        return [rows.setdefault(key, len(rows)) for key in self._keys_of(act)]

    def _keys_of(self, act: UserAct) -> Iterable[Key]:
        match self.view.entity:
            case "item":
                return act.ordinals
            case "user":
                return (act.user_key,) if holds_person(self.shard, act.user_key) else ()
            case "channel":
                return (act.channel,)
            case _:
                return dict.fromkeys(name for item in act.ordinals if (name := self._names.get(item)))

    def of_items(self, ordinals: Sequence[int]) -> NDArray[np.float32]:
        """N × W: counts of the items, or of their categories or brands as they are named now."""
        if self._naming is None:
            return self.of(ordinals)
        return self.of([self._names.get(ordinal, "") for ordinal in ordinals])

    def of(self, keys: Sequence[Key]) -> NDArray[np.float32]:
        """N × W: counts of each entity; zeros for one of which nothing was counted."""
        rows = np.fromiter((self._rows.get(key, -1) for key in keys), np.int64, len(keys))
        if not self._rows:
            return np.zeros((len(rows), len(self.view.windows)), np.float32)
        counts = self._counts.totals_RW[rows].astype(np.float32)
        counts[rows < 0] = 0
        return counts

    def forget(self, key: Key) -> None:
        """Makes an entity one of which nothing was ever counted; what was is nobody's until it leaves its windows."""
        if key in self._rows:
            # rows are numbered by their place
            self._rows = {f"\0{row}" if old == key else old: row for old, row in self._rows.items()}

    def columns(self) -> Columns:
        """Everything that the next fact's effect depends on, but offset and time."""
        names = self._names
        return {
            **self._counts.columns(len(self._rows)),
            **packed("keys", [str(key).encode() for key in self._rows]),
            **packed("names", [name.encode() for name in names.values()]),
            "named": np.fromiter(names, np.int64, len(names)),
        }

    @classmethod
    def restored(
        cls, view: WindowedView, columns: Columns, offset: int, now_us: int, shard: Shard = WHOLE
    ) -> ViewCounts:
        counts = cls(view, shard)
        counts.offset, counts.now_us = offset, now_us
        counts._counts.restore(columns)
        parse = int if view.entity in _NUMBERED else bytes.decode
        counts._rows = {parse(key): row for row, key in enumerate(unpacked("keys", columns))}
        names = [name.decode() for name in unpacked("names", columns)]
        counts._names = dict(zip(columns["named"].tolist(), names, strict=True))
        return counts
