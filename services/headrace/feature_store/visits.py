"""The visits that go on now: who is in one, what they touched last, and the training group it will become."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.feature_store.histories import history_of
from headrace.feature_store.training_rows import ClosedGroup, OpenGroup
from headrace.model.candidates import RECENT_ITEMS, Person
from headrace.model.covisitation import PAIRED
from headrace.model.history import VISIT_GAP_US, recent_distinct
from headrace.model.items import DECAY_FEATURES, ITEM_FEATURES, NEIGHBOURS
from headrace.model.words import WORDS


@dataclass(slots=True)
class Visit:
    """One person's visit. `group` is None when it isn't sampled."""

    user_key: str
    last_us: int
    # the last 20 distinct items, and when each was touched last
    recent: list[int]
    recent_us: list[int]
    group: OpenGroup | None
    # the person had bought nothing before it
    is_first: bool = False

    def new_among(self, ordinals: list[int]) -> list[int]:
        """Those of `ordinals` that are not among the recent ones."""
        return [ordinal for ordinal in ordinals if ordinal not in self.recent]

    def touch(self, ordinals: list[int], time_us: int) -> None:
        """Makes `ordinals` the most recent."""
        again = set(ordinals)
        kept = [(at, us) for at, us in zip(self.recent, self.recent_us, strict=True) if at not in again]
        self.recent = ([at for at, _ in kept] + ordinals)[-PAIRED:]
        self.recent_us = ([us for _, us in kept] + [time_us] * len(ordinals))[-PAIRED:]


class Visits:
    """Open visits in the order of their last event, so that the first to end is the first."""

    def __init__(self) -> None:
        self._open: dict[str, Visit] = {}

    def of(self, user_key: str) -> Visit | None:
        return self._open.get(user_key)

    def begin(self, visit: Visit) -> None:
        self._open[visit.user_key] = visit

    def touch(self, user_key: str, now_us: int) -> None:
        """Notes an event of the user's visit: it now ends last."""
        visit = self._open.pop(user_key)
        visit.last_us = now_us
        self._open[user_key] = visit

    def user_keys(self) -> Iterable[str]:
        return self._open

    def hand_over(self, device_key: str, user_key: str, now_us: int) -> None:
        """The visit on a device goes on as the person's who logged in there, unless that one is in a visit already."""
        if device_key in self._open and user_key not in self._open:
            visit = self._open.pop(device_key)
            visit.user_key = user_key
            self._open[user_key] = visit
            self.touch(user_key, now_us)

    def erase(self, user_key: str) -> None:
        """Drops the person's visit, and with it the training group that it would have become."""
        self._open.pop(user_key, None)

    def end(self, now_us: int, offset: int) -> Iterator[ClosedGroup]:
        """Ends the visits that had no event for 30 minutes; the record at `offset` showed it."""
        while self._open:
            user_key, visit = next(iter(self._open.items()))
            if now_us - visit.last_us <= VISIT_GAP_US:
                return
            del self._open[user_key]
            if visit.group is not None:
                yield visit.group.closed(offset, user_key)

    def columns(self) -> Columns:
        groups = [visit.group for visit in self._open.values() if visit.group is not None]
        headers = [json.dumps(_header(visit)).encode() for visit in self._open.values()]
        people = [group.person for group in groups]
        return {
            **packed("visits.headers", headers),
            **packed("visits.histories", [group.history for group in groups]),
            "visits.items": _stacked(
                [columns for group in groups for columns in group.item_columns], len(ITEM_FEATURES)
            ),
            "visits.neighbours": _stacked([person.neighbour_ordinals_DK for person in people], NEIGHBOURS),
            "visits.weights": _stacked([person.neighbour_weights_DK for person in people], NEIGHBOURS),
            "visits.own": _stacked([person.own_L3 for person in people], 3),
            "visits.words": _stacked([person.recent_words_DW for person in people], 2 * WORDS),
            "visits.maxima": _stacked([person.decay_maxima[None] for person in people], len(DECAY_FEATURES)),
        }

    def restore(self, columns: Columns) -> None:
        self._open = {}
        groups = _Groups(columns)
        for text in unpacked("visits.headers", columns):
            header: dict[str, Any] = json.loads(text)
            group = None if header["group"] is None else groups.next(header["group"], header["user_key"])
            self._open[header["user_key"]] = Visit(
                header["user_key"],
                header["last_us"],
                header["recent"],
                header["recent_us"],
                group,
                header["is_first"],
            )


class _Groups:
    """Takes open groups off the stacked columns, one after the other."""

    def __init__(self, columns: Columns) -> None:
        self._histories = iter(unpacked("visits.histories", columns))
        self._columns = columns
        self._starts = dict.fromkeys(("items", "neighbours", "weights", "own", "maxima", "words"), 0)

    # the header is JSON that `_header` wrote: its values are of several types
    def next(self, header: dict[str, Any], user_key: str) -> OpenGroup:
        history = next(self._histories)
        parsed = history_of(history, user_key)
        ordinals: list[int] = header["ordinals"]
        recent = recent_distinct(parsed.ordinals, RECENT_ITEMS)
        person = Person(
            parsed,
            recent,
            self._take("neighbours", len(recent)).astype(np.uint32),
            self._take("weights", len(recent)).astype(np.float32),
            self._take("own", len(parsed)).astype(np.float32),
            self._take("maxima", 1)[0].astype(np.float32),
            self._take("words", len(recent)).astype(np.float32),
        )
        rows = self._take("items", len(ordinals)).astype(np.float32)
        labels = dict(map(tuple, header["labels"]))
        return OpenGroup(header["time_us"], history, person, ordinals, [rows], header["weights"], labels, set(ordinals))

    def _take(self, name: str, rows: int) -> NDArray[np.generic]:
        start = self._starts[name]
        self._starts[name] = start + rows
        return self._columns[f"visits.{name}"][start : start + rows]


def _stacked(parts: Sequence[NDArray[np.generic]], width: int) -> NDArray[np.generic]:
    return np.concatenate(parts) if parts else np.empty((0, width), np.float32)


def _header(visit: Visit) -> dict[str, object]:
    group = visit.group
    return {
        "user_key": visit.user_key,
        "last_us": visit.last_us,
        "recent": visit.recent,
        "recent_us": visit.recent_us,
        "is_first": visit.is_first,
        "group": group
        and {
            "time_us": group.time_us,
            "ordinals": group.ordinals,
            "weights": group.weights,
            "labels": list(group.labels.items()),
        },
    }
