"""Joins lists that were shown with what people did next, by attribution token.

Only rankers write impressions, so a token that waits here was given out by the suite: one that somebody made up, or
changed, finds nothing. What remains is a true token in another person's hands: it earns nothing either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.model.events import EventCode
from headrace.runtime.erasures import Erasure
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.arrays import Arrays, packed_json, unpacked_json
from headrace.trainer.forgotten import Forgotten
from headrace.trainer.ranker_learner import Groups
from headrace.trainer.records import Events, Shown

# what a later event says more strongly than an earlier one
_STRENGTH = {EventCode.VIEW: 1, EventCode.CART: 2, EventCode.PURCHASE: 3}


@dataclass(slots=True)
class Waiting:
    """A list that was shown, with the strongest thing that followed for each item so far."""

    token: str
    ordinals: NDArray[np.uint32]
    features: NDArray[np.float32]
    labels: NDArray[np.uint8]
    time_us: int
    # a keyed hash of who saw it
    owner: int


class ImpressionJoin:
    """Waiting impressions, at most `limit`; each becomes a group when its window of log time has passed.

    Impressions with other features than this code computes are passed over, and so are events whose
    token is not waiting (too late, or never logged) or was given to somebody else. However often an event is
    repeated with its token, an item has one label. The oldest go first when there are too many.
    """

    def __init__(
        self, window_s: float, limit: int, privacy: Privacy = UNKEYED, forgotten: Forgotten | None = None
    ) -> None:
        self._privacy = privacy
        self._forgotten = Forgotten() if forgotten is None else forgotten
        self._window_us = int(window_s * 1e6)
        self._limit = limit
        self._pending: dict[str, Waiting] = {}
        self._now_us = 0

    def fold(self, impressions: Sequence[Shown], events: Events) -> Groups:
        """Takes in a slice; the groups that closed with it."""
        return _groups_of(self.closed(impressions, events))

    def closed(self, impressions: Sequence[Shown], events: Events) -> list[Waiting]:
        """Takes in a slice; the lists that closed with it, oldest first."""
        for shown in impressions:
            self._await(shown)
        for row, token in enumerate(events.tokens):
            if token in self._pending and self._is_of_owner(self._pending[token], events, row):
                self._label(self._pending[token], events, row)
        newest = [int(events.times_us.max())] if len(events) else []
        self._now_us = max([self._now_us, *newest, *(shown.time_us for shown in impressions)])
        return self._closed()

    def _await(self, shown: Shown) -> None:
        # a list that is logged once more must not take back what followed
        if shown.token in self._pending or shown.feature_schema != FEATURE_SCHEMA:
            return
        owner = self._privacy.owner(shown.user_key)
        if len(shown.ordinals) == len(shown.features) and not self._forgotten.is_of_one(owner, shown.time_us):
            labels = np.zeros(len(shown.ordinals), np.uint8)
            self._pending[shown.token] = Waiting(
                shown.token, shown.ordinals, shown.features, labels, shown.time_us, owner
            )

    def _is_of_owner(self, waiting: Waiting, events: Events, row: int) -> bool:
        return any(self._privacy.owner(key) == waiting.owner for key in events.actors(row))

    def _label(self, waiting: Waiting, events: Events, row: int) -> None:
        code = EventCode(int(events.event_types[row]))
        if code not in _STRENGTH or events.times_us[row] - waiting.time_us > self._window_us:
            return
        for at in np.flatnonzero(waiting.ordinals == events.ordinals[row]):
            before = _STRENGTH.get(EventCode(int(waiting.labels[at])), 0)
            waiting.labels[at] = code if _STRENGTH[code] > before else waiting.labels[at]

    def _closed(self) -> list[Waiting]:
        over = max(0, len(self._pending) - self._limit)
        tokens = [
            token
            for place, (token, waiting) in enumerate(self._pending.items())
            if place < over or self._now_us - waiting.time_us > self._window_us
        ]
        return [self._pending.pop(token) for token in tokens]

    def erase(self, erasure: Erasure) -> int:
        """Forgets what people were shown; how many lists waited."""
        gone = [token for token, waiting in self._pending.items() if waiting.owner in erasure.owners]
        for token in gone:
            del self._pending[token]
        return len(gone)

    def __len__(self) -> int:
        return len(self._pending)

    def tokens(self) -> Iterable[str]:
        """Of the lists that wait."""
        return self._pending.keys()

    def arrays(self) -> Arrays:
        waiting = list(self._pending.values())
        facts = [self._now_us, list(self._pending), [p.time_us for p in waiting], [len(p.labels) for p in waiting]]
        none = np.zeros((0, len(CANDIDATE_FEATURES)), np.float32)
        return {
            "facts": packed_json(facts),
            "owners": np.array([p.owner for p in waiting], np.int64),
            "ordinals": np.concatenate([np.zeros(0, np.uint32), *(p.ordinals for p in waiting)]),
            "features": np.concatenate([none, *(p.features for p in waiting)]),
            "labels": np.concatenate([np.zeros(0, np.uint8), *(p.labels for p in waiting)]),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._now_us, tokens, times, sizes = unpacked_json(arrays["facts"])
        self._pending = {}
        start = 0
        for token, time_us, size, owner in zip(tokens, times, sizes, arrays["owners"].tolist(), strict=True):
            part = slice(start, start + size)
            ordinals, features = arrays["ordinals"][part].copy(), arrays["features"][part].copy()
            self._pending[token] = Waiting(token, ordinals, features, arrays["labels"][part].copy(), time_us, owner)
            start += size


def _groups_of(closed: Sequence[Waiting]) -> Groups:
    closed = [each for each in closed if len(each.labels)]
    if not closed:
        return Groups.empty()
    labels = np.concatenate([each.labels for each in closed])
    return Groups(
        np.concatenate([each.features for each in closed]).astype(np.float32),
        labels,
        np.ones(len(labels), np.float32),
        np.array([len(each.labels) for each in closed], np.int64),
        np.array([each.owner for each in closed], np.int64),
    )
