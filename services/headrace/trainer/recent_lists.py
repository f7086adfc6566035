"""The newest lists that were shown, with what followed: what two releases' ranker networks are compared by.

R rows (shown items) end to end, F features, G lists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.runtime.erasures import Erasure
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.forgotten import Forgotten
from headrace.trainer.impressions import ImpressionJoin, Waiting
from headrace.trainer.records import CERTAIN, Drawing, Events, Shown


@dataclass(frozen=True, slots=True)
class Order:
    """What a list was ordered by."""

    scores: NDArray[np.float32]
    drawing: Drawing

    @classmethod
    def of(cls, shown: Shown) -> Order:
        if len(shown.scores) == len(shown.ordinals):
            return cls(shown.scores, shown.drawing)
        # nobody can tell what its chances were
        return cls(np.zeros(len(shown.ordinals), np.float32), CERTAIN)


@dataclass(frozen=True, slots=True)
class ShownLists:
    """Lists end to end. `labels_R` are EventCodes of what followed.

    `scores_R` are what the lists were ordered by, of which chance had the part that shares (0: none), temperatures
    and slates say.
    """

    features_RF: NDArray[np.float32]
    labels_R: NDArray[np.uint8]
    scores_R: NDArray[np.float32]
    ordinals_R: NDArray[np.uint32]
    sizes_G: NDArray[np.int64]
    # keyed hashes of who saw them
    owners_G: NDArray[np.int64]
    shares_G: NDArray[np.float64]
    temperatures_G: NDArray[np.float64]
    slates_G: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sizes_G)

    @classmethod
    def none(cls) -> ShownLists:
        return cls.of(())

    @classmethod
    def of(cls, lists: Sequence[tuple[Waiting, Order]]) -> ShownLists:
        waiting, orders = [each for each, _ in lists], [order for _, order in lists]
        drawings = [order.drawing for order in orders]
        none = np.zeros((0, len(CANDIDATE_FEATURES)), np.float32)
        return cls(
            np.concatenate([none, *(each.features for each in waiting)]),
            np.concatenate([np.zeros(0, np.uint8), *(each.labels for each in waiting)]),
            np.concatenate([np.zeros(0, np.float32), *(order.scores for order in orders)]),
            np.concatenate([np.zeros(0, np.uint32), *(each.ordinals for each in waiting)]),
            np.array([len(each.labels) for each in waiting], np.int64),
            np.array([each.owner for each in waiting], np.int64),
            np.array([drawing.share for drawing in drawings], np.float64),
            np.array([drawing.temperature for drawing in drawings], np.float64),
            np.array([drawing.slate for drawing in drawings], np.int64),
        )


class RecentLists:
    """The newest `limit` lists whose window of log time has passed; at most twice as many wait for that."""

    def __init__(self, window_s: float, limit: int, privacy: Privacy = UNKEYED) -> None:
        self._forgotten = Forgotten()
        self._join = ImpressionJoin(window_s, 2 * limit, privacy, self._forgotten)
        self._orders: dict[str, Order] = {}
        self._closed: deque[tuple[Waiting, Order]] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._closed)

    def fold(self, impressions: Sequence[Shown], events: Events) -> None:
        """Takes in what was logged next."""
        for shown in impressions:
            self._orders[shown.token] = Order.of(shown)
        for waiting in self._join.closed(impressions, events):
            if len(waiting.labels):
                self._closed.append((waiting, self._orders[waiting.token]))
        self._orders = {token: self._orders[token] for token in self._join.tokens()}

    def erase(self, erasure: Erasure) -> None:
        """Forgets what people were shown."""
        self._forgotten.add(erasure)
        self._join.erase(erasure)
        kept = [each for each in self._closed if each[0].owner not in erasure.owners]
        self._closed = deque(kept, maxlen=self._closed.maxlen)

    def all(self) -> ShownLists:
        """Everything that is kept, oldest first."""
        return ShownLists.of(self._closed)
