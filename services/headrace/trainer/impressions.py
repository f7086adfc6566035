"""Joins lists that were shown with what people did next, by attribution token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class _Pending:
    ordinals: NDArray[np.uint32]
    features: NDArray[np.float32]
    labels: NDArray[np.uint8]
    time_us: int
    # a keyed hash of who saw it
    owner: int


class ImpressionJoin:
    """Waiting impressions, at most `limit`; each becomes a group when its window of log time has passed.

    Impressions with other features than this code computes are passed over, and so are events whose
    token is not waiting (too late, or never logged). The oldest go first when there are too many.
    """

    def __init__(
        self, window_s: float, limit: int, privacy: Privacy = UNKEYED, forgotten: Forgotten | None = None
    ) -> None:
        self._privacy = privacy
        self._forgotten = Forgotten() if forgotten is None else forgotten
        self._window_us = int(window_s * 1e6)
        self._limit = limit
        self._pending: dict[str, _Pending] = {}
        self._now_us = 0

    def fold(self, impressions: Sequence[Shown], events: Events) -> Groups:
        """Takes in a slice; the groups that closed with it."""
        for shown in impressions:
            if shown.feature_schema == FEATURE_SCHEMA and len(shown.ordinals) == len(shown.features):
                labels = np.zeros(len(shown.ordinals), np.uint8)
                owner = self._privacy.owner(shown.user_key)
                if not self._forgotten.is_of_one(owner, shown.time_us):
                    self._pending[shown.token] = _Pending(shown.ordinals, shown.features, labels, shown.time_us, owner)
        for row, token in enumerate(events.tokens):
            if token in self._pending:
                self._label(self._pending[token], events, row)
        newest = [int(events.times_us.max())] if len(events) else []
        self._now_us = max([self._now_us, *newest, *(shown.time_us for shown in impressions)])
        return self._closed()

    def _label(self, pending: _Pending, events: Events, row: int) -> None:
        code = EventCode(int(events.event_types[row]))
        if code not in _STRENGTH or events.times_us[row] - pending.time_us > self._window_us:
            return
        for at in np.flatnonzero(pending.ordinals == events.ordinals[row]):
            before = _STRENGTH.get(EventCode(int(pending.labels[at])), 0)
            pending.labels[at] = code if _STRENGTH[code] > before else pending.labels[at]

    def _closed(self) -> Groups:
        over = max(0, len(self._pending) - self._limit)
        tokens = [
            token
            for place, (token, pending) in enumerate(self._pending.items())
            if place < over or self._now_us - pending.time_us > self._window_us
        ]
        closed = [pending for pending in (self._pending.pop(token) for token in tokens) if len(pending.labels)]
        if not closed:
            return Groups.empty()
        labels = np.concatenate([pending.labels for pending in closed])
        return Groups(
            np.concatenate([pending.features for pending in closed]).astype(np.float32),
            labels,
            np.ones(len(labels), np.float32),
            np.array([len(pending.labels) for pending in closed], np.int64),
            np.array([pending.owner for pending in closed], np.int64),
        )

    def erase(self, erasure: Erasure) -> int:
        """Forgets what people were shown; how many lists waited."""
        gone = [token for token, pending in self._pending.items() if pending.owner in erasure.owners]
        for token in gone:
            del self._pending[token]
        return len(gone)

    def __len__(self) -> int:
        return len(self._pending)

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
            self._pending[token] = _Pending(ordinals, features, arrays["labels"][part].copy(), time_us, owner)
            start += size
