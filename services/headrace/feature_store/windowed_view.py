"""Windowed-count views as a shop declares them: what is counted, of whom, over which windows.

>>> from headrace.v1.common_pb2 import CHANNEL_STORE
>>> store_views = WindowedView(
...     name="store_views",
...     entity="item",
...     event_types=("detail-page-view",),
...     channels=(CHANNEL_STORE,),
...     windows=("1h", "1d"),
... )
>>> store_views.features
('count_1h', 'count_1d')
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from headrace.model.items import DAY_US, HOUR_US

ENTITIES = ("item", "user", "category", "brand", "channel")
# what names items, and what else may be counted of users and channels
ITEM_EVENT_TYPES = ("detail-page-view", "add-to-cart", "remove-from-cart", "purchase-complete")
OTHER_EVENT_TYPES = ("home-page-view", "category-page-view", "search", "purchase-cancel")
CHANNELS = 8

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WINDOW = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNITS_US = {"m": 60_000_000, "h": HOUR_US, "d": DAY_US}
_LONGEST_US = 90 * DAY_US


@dataclass(frozen=True, slots=True)
class WindowedView:
    """How often events of some types happened to each entity, over sliding windows.

    An event counts once for each distinct item, category and brand that it names, and once for its user and its
    channel. `channels` are numbers of `headrace.v1.Channel`; none named: all. A cancellation takes nothing back:
    what was done was done; it can be counted itself ("purchase-cancel", of users and channels).
    Another definition needs another `version`.
    """

    name: str
    entity: str
    event_types: tuple[str, ...]
    windows: tuple[str, ...]
    channels: tuple[int, ...] = ()
    version: int = 1
    description: str = ""

    @property
    def key(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def is_online(self) -> bool:
        """Whether it is read as it is held: always."""
        return True

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f"count_{window}" for window in self.windows)

    @property
    def windows_us(self) -> tuple[int, ...]:
        return tuple(map(window_us, self.windows))

    def definition_hash(self) -> str:
        """SHA-256 of what decides the values. The order of event types and channels does not."""
        return definition_hash(
            [self.name, self.version, self.entity, sorted(self.event_types), self.windows, sorted(self.channels)]
        )

    def faults(self) -> Iterator[str]:
        """All that is wrong with it, in sentences."""
        if not _NAME.fullmatch(self.name):
            yield f"name must be 1 to 64 of a-z, 0-9 and _, beginning with a letter, got {self.name!r}"
        if self.version < 1:
            yield f"version must be at least 1, got {self.version}"
        if self.entity not in ENTITIES:
            yield f"entity must be one of {', '.join(ENTITIES)}, got {self.entity!r}"
        yield from self._event_faults()
        yield from self._window_faults()
        for channel in self.channels:
            if not 0 <= channel < CHANNELS:
                yield f"channels must be from 0 to {CHANNELS - 1}, got {channel}"

    def _event_faults(self) -> Iterator[str]:
        known = (
            ITEM_EVENT_TYPES if self.entity in ("item", "category", "brand") else ITEM_EVENT_TYPES + OTHER_EVENT_TYPES
        )
        if not self.event_types:
            yield "event_types must not be empty"
        for event_type in self.event_types:
            if event_type not in known:
                yield f"event_types of an entity {self.entity!r} must be of {', '.join(known)}, got {event_type!r}"
        if len(set(self.event_types)) < len(self.event_types):
            yield f"event_types must differ, got {', '.join(self.event_types)}"

    def _window_faults(self) -> Iterator[str]:
        if not self.windows:
            yield "windows must not be empty"
        for window in self.windows:
            if not _WINDOW.fullmatch(window) or window_us(window) > _LONGEST_US:
                yield f"windows must be numbers of minutes, hours or days such as 5m, 1h, 7d, up to 90d, got {window!r}"
        if len(set(self.windows)) < len(self.windows):
            yield f"windows must differ, got {', '.join(self.windows)}"


def window_us(window: str) -> int:
    """The length of "5m", "1h", "7d" in microseconds."""
    return int(window[:-1]) * _UNITS_US[window[-1]]


def definition_hash(definition: object) -> str:
    """SHA-256 of what JSON says of a definition."""
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
