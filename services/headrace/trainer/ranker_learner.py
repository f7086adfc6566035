"""Learns the ranker network from groups: what was proposed at a moment, and what followed.

G groups, R rows, C rows of the largest group kept, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.candidates import CANDIDATE_FEATURES, RETRIEVAL_FEATURES
from headrace.model.ranker_network import RankerNetwork, RankerShape, ranking_loss
from headrace.trainer.arrays import Arrays, Kept, gathered, scatter
from headrace.trainer.module_weights import ModuleWeights
from headrace.trainer.optimisers import DenseOptimiser
from headrace.trainer.settings import TrainerSettings

# rows of a group that are kept for replay: all that something followed, then others. Fewer cut off the rows
# that no source proposed, which stand last (64: .2321 instead of .2338 in the weeks for tuning)
_KEPT_ROWS = 128
# what is left after a step of what the published weights were before it
_AVERAGE_DECAY = 0.98
_AVERAGE_WARM_UP = 10
_LOSS_MEMORY = 0.02
# the towers have learned what followed by the time that its rows arrive, so their scores look better than
# they will be when served; hiding them from some groups keeps the network from leaning on them alone
_HIDDEN_SHARE = 0.2
# the order of a network that has learned nothing yet
_PREFERENCES = {
    "lexical_score": 1.0,
    "vector_rank": 0.5,
    "covisitation": 0.5,
    "own_basket_share_decayed": 0.5,
    "relative_log_purchases_7d": 0.5,
    "relative_log_views_7d": 0.25,
}


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows of groups end to end; labels are EventCodes of what followed, 0 for nothing.

    A weight says for how many candidates a row stands (rows without a label may be a sample).
    """

    features_RF: NDArray[np.float32]
    labels_R: NDArray[np.uint8]
    weights_R: NDArray[np.float32]
    sizes_G: NDArray[np.int64]
    # keyed hashes of whose they are; 0 for nobody's who can be forgotten
    owners_G: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sizes_G)

    @classmethod
    def empty(cls) -> Groups:
        features, none = np.zeros((0, len(CANDIDATE_FEATURES)), np.float32), np.zeros(0, np.int64)
        return cls(features, np.zeros(0, np.uint8), np.zeros(0, np.float32), none, none)

    def at(self, chosen: NDArray[np.int64]) -> Groups:
        """Some of the groups, in the order named."""
        ends = np.cumsum(self.sizes_G)
        sizes = self.sizes_G[chosen]
        firsts = np.repeat(ends[chosen] - sizes, sizes)
        rows = firsts + np.arange(len(firsts)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return Groups(self.features_RF[rows], self.labels_R[rows], self.weights_R[rows], sizes, self.owners_G[chosen])

    def joined(self, other: Groups) -> Groups:
        return Groups(
            np.concatenate([self.features_RF, other.features_RF]),
            np.concatenate([self.labels_R, other.labels_R]),
            np.concatenate([self.weights_R, other.weights_R]),
            np.concatenate([self.sizes_G, other.sizes_G]),
            np.concatenate([self.owners_G, other.owners_G]),
        )

    def with_positives(self) -> Groups:
        """The groups in which something followed: the others teach no order."""
        group_R = np.repeat(np.arange(len(self)), self.sizes_G)
        hits_G = np.bincount(group_R, self.labels_R > 0, minlength=len(self))
        return self.at(np.flatnonzero(hits_G))


class RankerLearner:
    """The ranker network with its optimiser and its replay.

    `network` is the one that learns; `averaged` follows it and is the one to publish: steps on a few groups each
    leave a noise that the average does not have (Polyak and Juditsky 1992; here as an exponential average).
    """

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        torch.manual_seed(settings.seed)
        self.network = RankerNetwork(RankerShape(len(CANDIDATE_FEATURES)))
        self.network.prefer({CANDIDATE_FEATURES.index(name): weight for name, weight in _PREFERENCES.items()})
        self.averaged = copy.deepcopy(self.network)
        self._adam = DenseOptimiser(self.network, settings.ranker_rate, warm_up_steps=20)
        self._kept = _KeptGroups(settings.ranker_replay_groups)
        self._parts: dict[str, Kept] = {
            "network": ModuleWeights(self.network),
            "averaged": ModuleWeights(self.averaged),
            "adam": self._adam,
            "kept": self._kept,
        }
        self._steps = 0
        self.rows = 0
        self.loss = 0.0

    def learn(self, groups: Groups) -> None:
        """A few passes over new groups in steps, each beside half as many old ones."""
        groups = groups.with_positives()
        self.rows += len(groups.labels_R)
        for number in range(self._settings.ranker_passes):
            for start in range(0, len(groups), self._settings.ranker_batch_groups):
                fresh = groups.at(np.arange(start, min(start + self._settings.ranker_batch_groups, len(groups))))
                self._learn_batch(fresh, is_new=number == 0)

    def _learn_batch(self, fresh: Groups, is_new: bool) -> None:
        rng = np.random.default_rng((self._settings.seed, self._steps))
        self._steps += 1
        if is_new:
            self.network.observe(torch.from_numpy(fresh.features_RF))
        self._step(fresh, rng)
        if is_new:
            self._kept.add(fresh, rng)

    def _step(self, fresh: Groups, rng: np.random.Generator) -> None:
        replayed = self._kept.sample(len(fresh) // 2, rng)
        groups = _some_hidden(fresh.joined(replayed), rng)
        logits = self.network(torch.from_numpy(groups.features_RF))
        labels, sizes = torch.from_numpy(groups.labels_R.astype(np.int64)), torch.from_numpy(groups.sizes_G)
        loss = ranking_loss(logits, labels, sizes, torch.from_numpy(groups.weights_R))
        loss.backward()  # type: ignore[no-untyped-call]
        if not self._adam.step():
            return
        self._follow()
        value = float(loss.detach())
        self.loss = value if not self.loss else self.loss + _LOSS_MEMORY * (value - self.loss)

    def _follow(self) -> None:
        decay = min(_AVERAGE_DECAY, self._steps / (self._steps + _AVERAGE_WARM_UP))
        learned = self.network.state_dict()
        for name, value in self.averaged.state_dict().items():
            value.lerp_(learned[name], 1 - decay)

    def erase(self, owners: Collection[int]) -> int:
        """Forgets the kept groups of people; how many."""
        return self._kept.erase(owners)

    def arrays(self) -> Arrays:
        counts = {"counts": np.array([self._steps, self.rows]), "loss": np.array([self.loss])}
        return gathered(self._parts) | counts

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        scatter(self._parts, arrays)
        self._steps, self.rows = (int(value) for value in arrays["counts"])
        self.loss = float(arrays["loss"][0])


class _KeptGroups:
    """An even sample of all groups so far, cut to 64 rows each, as half floats."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._features_GCF = np.zeros((0, _KEPT_ROWS, len(CANDIDATE_FEATURES)), np.float16)
        self._labels_GC = np.zeros((0, _KEPT_ROWS), np.uint8)
        self._weights_GC = np.zeros((0, _KEPT_ROWS), np.float32)
        self._sizes_G = np.zeros(0, np.int64)
        self._owners_G = np.zeros(0, np.int64)
        self._seen = self._filled = 0

    def add(self, groups: Groups, rng: np.random.Generator) -> None:
        ends = np.cumsum(groups.sizes_G)
        for start, end, owner in zip(ends - groups.sizes_G, ends, groups.owners_G, strict=True):
            slot = self._slot(rng)
            if slot is not None:
                rows = slice(start, end)
                self._owners_G[slot] = owner
                self._put(slot, groups.features_RF[rows], groups.labels_R[rows], groups.weights_R[rows])

    def _slot(self, rng: np.random.Generator) -> int | None:
        self._seen += 1
        if self._filled < self._size:
            self._filled += 1
            self._features_GCF = _longer(self._features_GCF, self._filled, self._size)
            self._labels_GC = _longer(self._labels_GC, self._filled, self._size)
            self._weights_GC = _longer(self._weights_GC, self._filled, self._size)
            self._sizes_G = _longer(self._sizes_G, self._filled, self._size)
            self._owners_G = _longer(self._owners_G, self._filled, self._size)
            return self._filled - 1
        slot = int(rng.integers(0, self._seen))
        return slot if slot < self._size else None

    def _put(
        self, slot: int, features: NDArray[np.float32], labels: NDArray[np.uint8], weights: NDArray[np.float32]
    ) -> None:
        order = np.argsort(labels == 0, kind="stable")[:_KEPT_ROWS]
        self._weights_GC[slot, : len(order)] = weights[order]
        self._features_GCF[slot, : len(order)] = features[order].clip(-60_000, 60_000)
        self._labels_GC[slot, : len(order)] = labels[order]
        self._sizes_G[slot] = len(order)

    def sample(self, count: int, rng: np.random.Generator) -> Groups:
        if not self._filled or not count:
            return Groups.empty()
        chosen = rng.integers(0, self._filled, count)
        sizes = self._sizes_G[chosen]
        inside = np.arange(_KEPT_ROWS) < sizes[:, None]
        features = self._features_GCF[chosen][inside].astype(np.float32)
        labels, weights = self._labels_GC[chosen][inside], self._weights_GC[chosen][inside]
        return Groups(features, labels, weights, sizes, self._owners_G[chosen])

    def erase(self, owners: Collection[int]) -> int:
        """Forgets the groups of people; how many. What comes next fills their places."""
        kept = np.flatnonzero(~np.isin(self._owners_G[: self._filled], list(owners)))
        gone = self._filled - len(kept)
        if gone:
            self._features_GCF, self._labels_GC = self._features_GCF[kept], self._labels_GC[kept]
            self._weights_GC, self._sizes_G = self._weights_GC[kept], self._sizes_G[kept]
            self._owners_G, self._filled = self._owners_G[kept], len(kept)
        return gone

    def arrays(self) -> Arrays:
        return {
            "features_GCF": self._features_GCF,
            "labels_GC": self._labels_GC,
            "weights_GC": self._weights_GC,
            "sizes_G": self._sizes_G,
            "owners_G": self._owners_G,
            "seen": np.array([self._seen, self._filled]),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._features_GCF = arrays["features_GCF"].copy()
        self._labels_GC = arrays["labels_GC"].copy()
        self._weights_GC = arrays["weights_GC"].copy()
        self._sizes_G = arrays["sizes_G"].copy()
        self._owners_G = arrays["owners_G"].copy()
        self._seen, self._filled = (int(count) for count in arrays["seen"])


def _longer(array: NDArray[Any], rows: int, most: int) -> NDArray[Any]:
    if rows <= len(array):
        return array
    room = min(most, max(rows, 2 * len(array), 64))
    return np.concatenate([array, np.zeros((room - len(array), *array.shape[1:]), array.dtype)])


def _some_hidden(groups: Groups, rng: np.random.Generator) -> Groups:
    hidden_R = np.repeat(rng.random(len(groups)) < _HIDDEN_SHARE, groups.sizes_G)
    features = groups.features_RF.copy()
    for name in RETRIEVAL_FEATURES[:2]:
        features[hidden_R, CANDIDATE_FEATURES.index(name)] = 0
    return Groups(features, groups.labels_R, groups.weights_R, groups.sizes_G, groups.owners_G)
