"""Which features a caller means by the names of views and features, and where each is read from."""

# F features

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.views import VIEWS, View
from headrace.feature_store.windowed_view import WindowedView, definition_hash
from headrace.model.items import COLUMN
from headrace.runtime.errors import Faults

AnyView: TypeAlias = View | WindowedView

# what a feature is read by: a category's and a brand's by the item that is of it, a candidate's by the item for the
# person, if one is named
ROLES = {
    "user": "user",
    "item": "item",
    "category": "item",
    "brand": "item",
    "candidate": "item",
    "channel": "channel",
}
# the built-in views of items are columns of one table
ITEM_TABLE = ""

_ITEM_VIEWS = ("item_document", "item_windows", "item_decay")
_KEPT_SELECTIONS = 1024
MOST_NAMES = 1_000
# an answer's status must fit the headers of a call
_FAULTS_TOLD, _SHOWN = 20, 80


@dataclass(frozen=True, slots=True)
class Part:
    """Columns of one view (`source`; ITEM_TABLE for those of items), and where in the answer they stand."""

    source: str
    columns: NDArray[np.int64]  # F
    places: NDArray[np.int64]  # F


@dataclass(frozen=True, slots=True)
class Columns:
    """What is read by one key (a person, an item, a channel): "view:feature" in the order of the answer."""

    names: tuple[str, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a call reads. `views` are the declared views among it, which must be live."""

    user: Columns
    item: Columns
    channel: Columns
    views: tuple[str, ...]
    schema: str


@dataclass(frozen=True, slots=True)
class Keys:
    """Which keys a call names."""

    user: bool
    item: bool
    channel: bool


class FeatureNames:
    """The features of the built-in views and of `declared` ones."""

    def __init__(self, declared: Iterable[WindowedView] = ()) -> None:
        self.declared = tuple(declared)
        views: list[AnyView] = [*VIEWS, *self.declared]
        self.views = {view.name: view for view in views}
        self._kept: dict[tuple[tuple[str, ...], Keys], Selection] = {}

    def select(self, names: Sequence[str], keys: Keys, faults: Faults) -> Selection | None:
        """What `names` mean (none: all that can be read by `keys`); None with every fault noted when they don't."""
        asked = (tuple(names), keys)
        if (kept := self._kept.get(asked)) is not None:
            return kept
        if not faults.check(len(names) <= MOST_NAMES, "features", f"must be at most {MOST_NAMES}, got {len(names)}"):
            return None
        own = Faults()
        pairs = list(dict.fromkeys(self._pairs(names, keys, own)))
        _add(own, faults)
        if faults:
            return None
        selection = self._selection(pairs)
        if len(self._kept) < _KEPT_SELECTIONS:
            self._kept[asked] = selection
        return selection

    def _pairs(self, names: Sequence[str], keys: Keys, faults: Faults) -> Iterator[tuple[str, str]]:
        if not names:
            readable = [view for view in self.views.values() if view.is_online]
            for view in (view for view in readable if getattr(keys, ROLES[view.entity])):
                yield from ((view.name, feature) for feature in view.features)
        for place, name in enumerate(names):
            found = self._meant(name, f"features[{place}]", faults)
            role = ROLES[self.views[found[0][0]].entity] if found else ""
            if found and not getattr(keys, role):
                faults.add(f"features[{place}]", f"{name!r} is read by {role}, and the call names none")
            yield from found

    def _meant(self, name: str, field: str, faults: Faults) -> list[tuple[str, str]]:
        view_name, _, feature = name.rpartition(":")
        if view_name:
            found = [(view_name, feature)] if self._has(view_name, feature) else []
        elif name in self.views:
            found = [(name, each) for each in self.views[name].features]
        else:
            found = [(view, name) for view in self.views if self._has(view, name)]
            online = [pair for pair in found if self.views[pair[0]].is_online]
            if len(online) > 1:
                meant = " or ".join(":".join(pair) for pair in online)
                faults.add(field, f"{name!r} is ambiguous: {meant}")
                return []
            found = online or found
        if not faults.check(bool(found), field, f"there is no view and no feature {name[:_SHOWN]!r}"):
            return []
        if not self.views[found[0][0]].is_online:
            faults.add(field, f"{name!r} is computed by rankers and not read online")
            return []
        return found

    def _has(self, view: str, feature: str) -> bool:
        return view in self.views and feature in self.views[view].features

    def _selection(self, pairs: list[tuple[str, str]]) -> Selection:
        by_role: dict[str, list[tuple[str, str]]] = {"user": [], "item": [], "channel": []}
        for view, feature in pairs:
            by_role[ROLES[self.views[view].entity]].append((view, feature))
        used = list(dict.fromkeys(view for view, _ in pairs))
        names = [":".join(pair) for role in by_role.values() for pair in role]
        schema = definition_hash([[self.views[view].definition_hash() for view in sorted(used)], names])
        views = tuple(view for view in used if isinstance(self.views[view], WindowedView))
        columns = {role: self._columns(pairs) for role, pairs in by_role.items()}
        return Selection(columns["user"], columns["item"], columns["channel"], views, schema)

    def _columns(self, pairs: list[tuple[str, str]]) -> Columns:
        sources: dict[str, list[tuple[int, int]]] = {}
        for place, (view, feature) in enumerate(pairs):
            if view in _ITEM_VIEWS:
                sources.setdefault(ITEM_TABLE, []).append((COLUMN[feature], place))
            else:
                sources.setdefault(view, []).append((self.views[view].features.index(feature), place))
        parts = tuple(
            Part(source, np.array([column for column, _ in both]), np.array([place for _, place in both]))
            for source, both in sources.items()
        )
        return Columns(tuple(":".join(pair) for pair in pairs), parts)


def _add(found: Faults, faults: Faults) -> None:
    every = found.all()
    for fault in every[:_FAULTS_TOLD]:
        faults.add(fault.field, fault.description)
    if len(every) > _FAULTS_TOLD:
        faults.add("features", f"{len(every) - _FAULTS_TOLD} more are faulty")
