"""Puts the blend's best places in order again, by what every source had said of each item and how like it is to what
was seen.

A mixture can only add up what its sources say. That two of them agree, or that the one that mostly knows is silent
here, says more: a small network learns it from outcomes as they come. It begins as the mixture's own order.

P states, M places of a shortlist, K sources, J kinds of likeness, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from headrace.trainer.arrays import Arrays, Kept, gathered, scatter
from headrace.trainer.module_weights import ModuleWeights
from headrace.trainer.optimisers import DenseOptimiser

_HIDDEN = 64
_RATE = 2e-3
_BATCH = 64
_PASSES = 4
_LEAST_CHANCE = 1e-6
# brings logs of chances, −14 … 0, to about −3 … 2
_LOG_SHIFT, _LOG_SCALE = 6.0, 3.0
_NOT_LISTED = -1


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The mixture's best items for each state, best first."""

    mixed_PM: NDArray[np.float32]  # negative: not to be ranked
    chances_PMK: NDArray[np.float32]
    likeness_PMJ: NDArray[np.float32]
    contexts_P: NDArray[np.int64]
    places_P: NDArray[np.int64]  # where the item that came stands, from 0; −1: not in the list

    @classmethod
    def joined(cls, parts: Sequence[Shortlist]) -> Shortlist:
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def at(self, states: NDArray[np.integer[Any]]) -> Shortlist:
        return Shortlist(*(getattr(self, field.name)[states] for field in fields(self)))

    @property
    def are_listed_P(self) -> NDArray[np.bool_]:
        return np.asarray(self.places_P != _NOT_LISTED)

    @staticmethod
    def places_of(ordinals_PM: NDArray[np.int64], targets_P: NDArray[np.int64]) -> NDArray[np.int64]:
        are_targets_PM = ordinals_PM == targets_P[:, None]
        return np.where(are_targets_PM.any(axis=1), are_targets_PM.argmax(axis=1), _NOT_LISTED)


class Rescorer:
    """The network and how it learns; the same outcomes in the same order give the same weights."""

    def __init__(self, contexts: int, sources: int, kinds: int) -> None:
        self._network = _Network(contexts, sources, kinds)
        self._optimiser = DenseOptimiser(self._network, _RATE)
        self._lessons = 0
        self._parts: dict[str, Kept] = {"weights": ModuleWeights(self._network), "moments": self._optimiser}

    def ranks(self, lists: Shortlist) -> NDArray[np.int64]:
        """P: where the item that came stands in the new order, from 1; nothing is said of those not listed (0)."""
        with torch.no_grad():
            scores_PM = self._network(lists).numpy()
        own_P1 = np.take_along_axis(scores_PM, np.maximum(lists.places_P, 0)[:, None], axis=1)
        # equal scores stay in the mixture's order
        before_PM = np.arange(scores_PM.shape[1]) < lists.places_P[:, None]
        ahead_PM = (scores_PM > own_P1) | ((scores_PM == own_P1) & before_PM)
        return np.where(lists.are_listed_P, ahead_PM.sum(axis=1) + 1, 0)

    def learn(self, lists: Shortlist) -> None:
        """Takes in where what came stood in the lists; of those that had it in no place, nothing is to be learned."""
        lists = lists.at(np.flatnonzero(lists.are_listed_P))
        rng = np.random.default_rng(self._lessons)
        self._lessons += 1
        for _ in range(_PASSES):
            order = rng.permutation(len(lists.places_P))
            for start in range(0, len(order), _BATCH):
                batch = lists.at(order[start : start + _BATCH])
                loss = functional.cross_entropy(self._network(batch), torch.from_numpy(batch.places_P))
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimiser.step()

    def arrays(self) -> Arrays:
        return gathered(self._parts) | {"lessons": np.array([self._lessons])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        scatter(self._parts, arrays)
        self._lessons = int(arrays["lessons"][0])


class _Network(nn.Module):
    def __init__(self, contexts: int, sources: int, kinds: int) -> None:
        super().__init__()
        # the log of each chance and of the mixture, whether each source says anything at all, and the likeness
        self.first = nn.Linear(2 * sources + 1 + kinds, _HIDDEN)
        self.context = nn.Embedding(contexts, _HIDDEN)
        self.second = nn.Linear(_HIDDEN, _HIDDEN)
        self.last = nn.Linear(_HIDDEN, 1, bias=False)
        nn.init.zeros_(self.context.weight)
        nn.init.zeros_(self.last.weight)

    def forward(self, lists: Shortlist) -> Tensor:
        """P × M: the log of the mixture plus what the network adds; −∞ for what is not to be ranked."""
        mixed_PM, chances_PMK = torch.from_numpy(lists.mixed_PM), torch.from_numpy(lists.chances_PMK)
        logs_PMK = (torch.cat([chances_PMK, mixed_PM[..., None]], dim=-1).clamp_min(0) + _LEAST_CHANCE).log()
        likeness_PMJ = torch.from_numpy(lists.likeness_PMJ)
        scaled_PMK = (logs_PMK + _LOG_SHIFT) / _LOG_SCALE
        inputs = torch.cat([scaled_PMK, (chances_PMK > 0).float(), likeness_PMJ], dim=-1)
        contexts_P1H = self.context(torch.from_numpy(lists.contexts_P))[:, None, :]
        hidden_PMH = functional.silu(self.first(inputs) + contexts_P1H)
        hidden_PMH = functional.silu(self.second(hidden_PMH))
        scores_PM = logs_PMK[..., -1] + self.last(hidden_PMH).squeeze(-1)
        return cast(Tensor, scores_PM.masked_fill(mixed_PM < 0, float("-inf")))
