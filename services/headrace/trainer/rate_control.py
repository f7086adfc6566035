"""How fast to learn, by how well slices are foreseen: faster for a while after the world turned, slower when it rests.

The detector is a function of the losses since the last detection, so those are what is kept: bringing it
back is feeding them once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from headrace.trainer.arrays import Arrays
from headrace.trainer.forecast import SOURCES, Outcomes
from headrace.trainer.settings import TrainerSettings

# losses that the detector looks back on, at most; the newer half goes on when there are more
_LOOK_BACK = 1024
# losses, at most, that say whether what changed is worse now; river's ADWIN drops its oldest bucket alone when it
# finds a change, so its own mean still holds much of what was before
_NEWEST = 10
# nats by which a block must be better than the best before it
_IMPROVEMENT = 0.01
_PLATEAU_FACTOR = 0.5
_LEAST_CHANCE = 1e-12


def forecast_loss(outcomes: Outcomes) -> float:
    """Mean −log of the chance (nats) that the towers had given to what came."""
    chances_P = outcomes.chances_PK[:, SOURCES.index("vector")]
    return float(-np.log(np.maximum(chances_P, _LEAST_CHANCE)).mean())


class RateControl:
    """A factor on the towers' learning rates, from the loss of each slice before it was learned.

    A change for the worse (ADWIN, Bifet and Gavaldà 2007) sets the factor to `drift_rate_boost`, whose excess
    over 1 then halves every `drift_half_life_slices`. Each block of `plateau_slices` whose mean loss is not
    better than the best block since then halves the factor, down to `plateau_rate_floor`; only the next
    change takes that back, since a lower rate is often what makes the loss better.
    """

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._slices = 0
        self.drifts = 0
        # slices of the last detections, as many as would ask for a rotation
        self._drifted_at: list[int] = []
        self._begin([])
        self._rest()

    @property
    def multiplier(self) -> float:
        """Between `plateau_rate_floor` and `drift_rate_boost`."""
        return max(self._settings.plateau_rate_floor, self._calm * self._surge())

    @property
    def wants_rotation(self) -> bool:
        """Whether `rotation_drifts` changes came within the last `rotation_window_slices`: learning on won't do."""
        asked, window = self._settings.rotation_drifts, self._settings.rotation_window_slices
        return len(self._drifted_at) == asked and self._slices - self._drifted_at[0] < window

    def note(self, loss: float) -> None:
        """Takes in the loss (nats) of the next slice. One that is not finite says nothing of the world."""
        if not np.isfinite(loss):
            return
        self._slices += 1
        self._losses.append(loss)
        if self._is_change(loss):
            self._take_change()
        elif len(self._losses) >= _LOOK_BACK:
            self._begin(self._losses[_LOOK_BACK // 2 :])
        self._watch_plateau(loss)

    def _surge(self) -> float:
        if not self._drifted_at:
            return 1.0
        age = (self._slices - self._drifted_at[-1]) / self._settings.drift_half_life_slices
        return float(1 + (self._settings.drift_rate_boost - 1) * 0.5**age)

    def _take_change(self) -> None:
        newest = min(_NEWEST, len(self._losses) // 2)
        is_worse = np.mean(self._losses[-newest:]) > np.mean(self._losses[:-newest])
        self._begin([])
        if is_worse:
            self.drifts += 1
            self._drifted_at = [*self._drifted_at, self._slices][-self._settings.rotation_drifts :]
            self._rest()

    def _begin(self, losses: list[float]) -> None:
        self._losses = losses
        # looked for at every slice: one costs far more than looking does
        self._detector = ADWIN(clock=1)  # type: ignore[no-untyped-call]
        for loss in losses:
            self._is_change(loss)

    def _is_change(self, loss: float) -> bool:
        self._detector.update(loss)  # type: ignore[no-untyped-call]
        return bool(self._detector.drift_detected)

    def _rest(self) -> None:
        self._calm, self._best = 1.0, np.inf
        self._block_sum, self._block_slices = 0.0, 0

    def _watch_plateau(self, loss: float) -> None:
        self._block_sum += loss
        self._block_slices += 1
        if self._block_slices < self._settings.plateau_slices:
            return
        mean = self._block_sum / self._block_slices
        if mean > self._best - _IMPROVEMENT:
            self._calm = max(self._settings.plateau_rate_floor, self._calm * _PLATEAU_FACTOR)
        self._best = min(self._best, mean)
        self._block_sum, self._block_slices = 0.0, 0

    def arrays(self) -> Arrays:
        return {
            "losses": np.array(self._losses, np.float64),
            "drifted_at": np.array(self._drifted_at, np.int64),
            "numbers": np.array([self._slices, self.drifts, self._block_slices]),
            "plateau": np.array([self._calm, self._best, self._block_sum]),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._begin(arrays["losses"].tolist())
        self._drifted_at = arrays["drifted_at"].tolist()
        self._slices, self.drifts, self._block_slices = arrays["numbers"].tolist()
        self._calm, self._best, self._block_sum = arrays["plateau"].tolist()
