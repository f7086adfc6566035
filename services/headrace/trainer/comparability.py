"""What is left of a release's recall on the vectors as they have become since.

Held against what people do next just before it is learned, which neither the release nor the vectors know:
measured on what was learned already, newer vectors would look better than they serve.

P states, N items, D width.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.trainer.learner import Learner
from headrace.trainer.past_towers import PastTowers
from headrace.trainer.sequences import Pairs, Windows, pairs_of
from headrace.trainer.tower_learner import pair_wants

_TOP = 20
# states of one measurement, and scores of it: fewer states where there are many items
_MOST_STATES, _LEAST_STATES, _MOST_SCORES = 256, 16, 4_000_000
# standard deviations beyond chance
_SURE = 2.0


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left of some hits, over the same states: `lost` of them are gone and `gained` are new."""

    hits: int
    lost: int
    gained: int

    @property
    def share(self) -> float:
        """Recall now relative to recall then; 1 while there is nothing to compare."""
        return 1.0 - (self.lost - self.gained) / self.hits if self.hits else 1.0

    def is_below(self, limit: float) -> bool:
        """Whether the share is below `limit`, and not by chance (McNemar 1947)."""
        return self.share < limit and self.lost - self.gained > _SURE * math.sqrt(self.lost + self.gained)


class Comparability:
    """Follows one release at a time; `note` is to see every slice's windows before they are learned.

    A measurement is taken at most every `every_s`; the newest `states` states are remembered, from the
    newest release on. Nothing is measured while vectors go to another space than the release's.
    For the thread that learns; `skew` and `comparability` may be read from any.
    """

    def __init__(self, learner: Learner, space: Callable[[], str], every_s: float, states: int) -> None:
        self._learner = learner
        self._space = space
        self._every_s = every_s
        self._states = states
        self._released: PastTowers | None = None
        self._released_space = ""
        self._measured = -math.inf
        # hit by the release itself, as it is served now, by its queries on the vectors of now
        self._hits_P3 = np.zeros((0, 3), np.bool_)

    @property
    def skew(self) -> Remainder:
        """The release as it is served: its user tower over the vectors as sent by now, and they ranked."""
        return self._left(1)

    @property
    def comparability(self) -> Remainder:
        """The release's own queries, on the vectors that a release of now would have."""
        return self._left(2)

    def metrics(self) -> dict[str, float]:
        """Both shares and how many states they rest on; nothing before anything was measured."""
        if not len(self._hits_P3):
            return {}
        return {
            "skew": self.skew.share,
            "comparability": self.comparability.share,
            "compared_states": float(len(self._hits_P3)),
        }

    def follow(self, space: str) -> None:
        """A release was published just now: what comes is held against the towers and vectors as they are."""
        learner = self._learner
        self._released = PastTowers(0, learner.sent.dense(), copy.deepcopy(learner.towers.user))
        self._released_space = space
        self.begin_again()

    def begin_again(self) -> None:
        """Forgets what was measured; the same release is followed on."""
        self._hits_P3 = self._hits_P3[:0]
        self._measured = time.monotonic()

    def note(self, windows: Windows) -> None:
        """Measures on windows that nothing was learned from yet, when it is time to."""
        released = self._released
        if released is None or time.monotonic() - self._measured < self._every_s:
            return
        if self._space() != self._released_space:
            return
        self._measured = time.monotonic()
        self._hits_P3 = np.concatenate([self._hits_P3, self._hits(released, windows)])[-self._states :]

    def _hits(self, released: PastTowers, windows: Windows) -> NDArray[np.bool_]:
        served = replace(released, vectors_ND=self._learner.sent.dense())
        items = _in_both(released.vectors_ND, served.vectors_ND)
        windows, pairs = _sample(windows, items)
        if not len(pairs):
            return self._hits_P3[:0]
        queries_PD = pair_wants(released.user, windows, pairs, released.item_vectors)
        wants_PD = pair_wants(released.user, windows, pairs, served.item_vectors)
        targets_P = np.searchsorted(items, pairs.targets_P)
        hits = (
            _are_found(queries_PD, released.vectors_ND[items], targets_P),
            _are_found(wants_PD, served.vectors_ND[items], targets_P),
            _are_found(queries_PD, self._learner.item_vectors(items), targets_P),
        )
        return np.stack(hits, axis=1)

    def _left(self, column: int) -> Remainder:
        hits_P3 = self._hits_P3
        then_P, now_P = hits_P3[:, 0], hits_P3[:, column]
        return Remainder(int(then_P.sum()), int((then_P & ~now_P).sum()), int((now_P & ~then_P).sum()))


def _in_both(one_ND: NDArray[np.float32], other_ND: NDArray[np.float32]) -> NDArray[np.int64]:
    count = min(len(one_ND), len(other_ND))
    return np.flatnonzero(one_ND[:count].any(axis=1) & other_ND[:count].any(axis=1))


def _sample(windows: Windows, items: NDArray[np.int64]) -> tuple[Windows, Pairs]:
    """Evenly spaced states of which the next item is one of `items`, and the windows that they stand in."""
    pairs = pairs_of(windows).followed()
    pairs = pairs.at(np.isin(pairs.targets_P, items))
    most = min(_MOST_STATES, max(_LEAST_STATES, _MOST_SCORES // max(len(items), 1)))
    pairs = pairs.at(np.arange(len(pairs))[:: max(1, -(-len(pairs) // most))])
    rows, at = np.unique(pairs.rows_P, return_inverse=True)
    return windows.at(rows), replace(pairs, rows_P=at)


def _are_found(
    wants_PD: NDArray[np.float32], items_ND: NDArray[np.float32], targets_P: NDArray[np.int64]
) -> NDArray[np.bool_]:
    scores_PN = wants_PD @ items_ND.T
    own_P1 = scores_PN[np.arange(len(targets_P)), targets_P][:, None]
    return np.asarray((scores_PN > own_P1).sum(axis=1) < _TOP)
