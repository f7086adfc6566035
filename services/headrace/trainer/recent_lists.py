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
from headrace.trainer.records import Events, Shown


@dataclass(frozen=True, slots=True)
class ShownLists:
    """Lists end to end. `labels_R` are EventCodes of what followed; a propensity of 0 was not logged."""

    features_RF: NDArray[np.float32]
    labels_R: NDArray[np.uint8]
    propensities_R: NDArray[np.float32]
    sizes_G: NDArray[np.int64]
    # keyed hashes of who saw them
    owners_G: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sizes_G)

    @classmethod
    def none(cls) -> ShownLists:
        features, none = np.zeros((0, len(CANDIDATE_FEATURES)), np.float32), np.zeros(0, np.int64)
        return cls(features, np.zeros(0, np.uint8), np.zeros(0, np.float32), none, none)


class RecentLists:
    """The newest `limit` lists whose window of log time has passed; at most twice as many wait for that."""

    def __init__(self, window_s: float, limit: int, privacy: Privacy = UNKEYED) -> None:
        self._forgotten = Forgotten()
        self._join = ImpressionJoin(window_s, 2 * limit, privacy, self._forgotten)
        self._propensities: dict[str, NDArray[np.float32]] = {}
        self._closed: deque[tuple[Waiting, NDArray[np.float32]]] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._closed)

    def fold(self, impressions: Sequence[Shown], events: Events) -> None:
        """Takes in what was logged next."""
        for shown in impressions:
            is_logged = len(shown.propensities) == len(shown.ordinals)
            self._propensities[shown.token] = (
                shown.propensities if is_logged else np.zeros(len(shown.ordinals), np.float32)
            )
        for waiting in self._join.closed(impressions, events):
            if len(waiting.labels):
                self._closed.append((waiting, self._propensities[waiting.token]))
        self._propensities = {token: self._propensities[token] for token in self._join.tokens()}

    def erase(self, erasure: Erasure) -> None:
        """Forgets what people were shown."""
        self._forgotten.add(erasure)
        self._join.erase(erasure)
        kept = [each for each in self._closed if each[0].owner not in erasure.owners]
        self._closed = deque(kept, maxlen=self._closed.maxlen)

    def all(self) -> ShownLists:
        """Everything that is kept, oldest first."""
        lists = [waiting for waiting, _ in self._closed]
        if not lists:
            return ShownLists.none()
        return ShownLists(
            np.concatenate([each.features for each in lists]),
            np.concatenate([each.labels for each in lists]),
            np.concatenate([propensities for _, propensities in self._closed]),
            np.array([len(each.labels) for each in lists], np.int64),
            np.array([each.owner for each in lists], np.int64),
        )
