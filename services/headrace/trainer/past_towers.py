"""The towers as they were a while ago, so that a training row's scores know nothing of what followed it.

By the time that the rows of a visit arrive, the towers have learned from the visit itself: scored by them,
what followed looks far better than anything that is ever served, and the ranker network learns to trust
vectors blindly (measured on the real shop: Recall@20 .189 instead of above .24).

G groups, R rows, D width, N items.
"""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.towers import UserTower
from headrace.trainer.learner import Learner
from headrace.trainer.sequences import Windows
from headrace.trainer.tower_learner import person_vectors

# in the log's time: visits are closed half an hour after they end
_SPACING_US = 15 * 60 * 1_000_000
_MOST = 8
_MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class PastTowers:
    """Vectors as sent and the user tower, having learned nothing after `time_us`."""

    time_us: int
    vectors_ND: NDArray[np.float32]
    user: UserTower

    def item_vectors(self, ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
        """A row an item; zeros for items that had no vector then."""
        known = ordinals < len(self.vectors_ND)
        rows = np.zeros((len(ordinals), self.vectors_ND.shape[1]), np.float32)
        rows[known] = self.vectors_ND[ordinals[known]]
        return rows

    def user_vectors(self, windows: Windows, waits_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """B × D: what people wanted after all events of their windows."""
        places = windows.ordinals_BW[:, :-1].astype(np.int64)
        vectors = self.item_vectors(places.ravel()).reshape(*places.shape, -1)
        return person_vectors(self.user, windows, vectors, waits_B)


class TowerHistory:
    """The last few states of the towers, at least a quarter of an hour of log time apart."""

    def __init__(self) -> None:
        self._past: deque[PastTowers] = deque()

    def note(self, learner: Learner, time_us: int) -> None:
        """Keeps the towers as they are, unless that was done just before; `time_us` is the newest event learned."""
        if self._past and time_us < self._past[-1].time_us + _SPACING_US:
            return
        vectors_ND = learner.sent.dense()
        self._past.append(PastTowers(time_us, vectors_ND, copy.deepcopy(learner.towers.user)))
        room = max(2, min(_MOST, _MOST_BYTES // max(vectors_ND.nbytes, 1)))
        while len(self._past) > room:
            self._past.popleft()

    def before(self, time_us: int) -> PastTowers | None:
        """The newest towers that had learned nothing after `time_us`; None when none are kept."""
        return next((towers for towers in reversed(self._past) if towers.time_us <= time_us), None)
