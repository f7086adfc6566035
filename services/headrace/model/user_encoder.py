"""The user tower for one person at a time, in numpy: a third of the time that the same takes in torch.

Sequences are so short that calling an operation costs more than its arithmetic. And only the last state is asked
for, so the last block works out one row of its output. The tower itself says what is right: see its tests.
"""

# L events, S = L + 1 states, D width, H heads, E width of a head

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from headrace.model.towers import UserBlock, UserTower

F32 = NDArray[np.float32]

_EPSILON = np.float32(1e-6)
_SMALLEST = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class _Line:
    """x @ weight + bias."""

    weight: F32
    bias: F32 | None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None) -> _Line:
        return cls(np.ascontiguousarray(_array(weight).T), None if bias is None else _array(bias))

    def __call__(self, inputs: F32) -> F32:
        product: F32 = inputs @ self.weight
        return product if self.bias is None else product + self.bias


@dataclass(frozen=True, slots=True)
class _Block:
    heads: int
    attention_norm: F32
    query: _Line
    key_value: _Line
    attention_out: _Line
    gate_norm: F32
    gate_up: _Line
    down: _Line

    @classmethod
    def of(cls, block: UserBlock) -> _Block:
        width = block.qkv.in_features
        return cls(
            block.heads,
            _array(block.attention_norm.weight),
            _Line.of(block.qkv.weight[:width]),
            _Line.of(block.qkv.weight[width:]),
            _Line.of(block.attention_out.weight),
            _array(block.gate_norm.weight),
            _Line.of(block.gate_up.weight),
            _Line.of(block.down.weight),
        )

    def __call__(self, states_SD: F32, rows: slice) -> F32:
        """What becomes of the states at `rows`, which are the last ones."""
        kept_RD = states_SD[rows] + self._attended(_rms(states_SD, self.attention_norm), rows)
        gate_R, up_R = np.split(self.gate_up(_rms(kept_RD, self.gate_norm)), 2, axis=1)
        moved_RD: F32 = kept_RD + self.down(gate_R / (1 + np.exp(-gate_R)) * up_R)
        return moved_RD

    def _attended(self, states_SD: F32, rows: slice) -> F32:
        count, width = states_SD.shape
        query_HRE = self._by_head(self.query(states_SD[rows]))
        key_SD, value_SD = np.split(self.key_value(states_SD), 2, axis=1)
        scores_HRS = query_HRE @ self._by_head(key_SD).transpose(0, 2, 1)
        scores_HRS *= np.float32((width // self.heads) ** -0.5)
        if query_HRE.shape[1] > 1:
            scores_HRS[:, np.triu(np.ones((count, count), np.bool_), 1)[rows]] = -np.inf
        shares_HRS = np.exp(scores_HRS - scores_HRS.max(axis=2, keepdims=True))
        shares_HRS /= shares_HRS.sum(axis=2, keepdims=True)
        seen_HRE = shares_HRS @ self._by_head(value_SD)
        return self.attention_out(seen_HRE.transpose(1, 0, 2).reshape(-1, width))

    def _by_head(self, rows_RD: F32) -> F32:
        return rows_RD.reshape(len(rows_RD), self.heads, -1).transpose(1, 0, 2)


class UserEncoder:
    """Where one person is in item space. Safe to call from several threads at once."""

    def __init__(self, tower: UserTower) -> None:
        weights = {name: _array(value) for name, value in tower.state_dict().items()}
        self._item = _Line.of(tower.item.weight, tower.item.bias)
        self._event_type, self._channel = weights["event_type.weight"], weights["channel.weight"]
        self._gap, self._place = weights["gap.weight"], weights["place.weight"]
        self._beginning = weights["beginning"][None]
        self._blocks = [_Block.of(block) for block in tower.blocks if isinstance(block, UserBlock)]
        self._norm = weights["norm.weight"]
        self._wait_gain, self._wait_shift = 1 + weights["wait_gain.weight"], weights["wait_shift.weight"]
        self._habit_gain = weights["habit_gain.weight"] if tower.has_habit else None
        self._out = _Line.of(tower.out.weight, tower.out.bias)
        self._temperature = np.exp(weights["log_temperature"])

    def wants(
        self,
        vectors_LD: F32,
        types_L: NDArray[np.integer],
        channels_L: NDArray[np.integer],
        gaps_L: NDArray[np.integer],
        wait: int,
    ) -> F32:
        """D: what the person wants after these events and a wait (a gap bucket)."""
        events_LD = self._item(vectors_LD) + self._event_type[types_L] + self._channel[channels_L] + self._gap[gaps_L]
        states_SD = np.concatenate([self._beginning, events_LD]) + self._place[: len(vectors_LD) + 1]
        for block in self._blocks[:-1]:
            states_SD = block(states_SD, slice(None))
        last_1D = self._blocks[-1](states_SD, slice(-1, None)) if self._blocks else states_SD[-1:]
        wants_D = self._out(_rms(last_1D, self._norm) * self._wait_gain[wait] + self._wait_shift[wait])[0]
        wants_D = wants_D / max(np.sqrt(wants_D @ wants_D), _SMALLEST)
        if self._habit_gain is not None and len(vectors_LD):
            habit_D = vectors_LD.sum(axis=0) * np.float32(len(vectors_LD) ** -0.5)
            wants_D = wants_D + habit_D * self._habit_gain[wait]
        placed_D: F32 = (wants_D * self._temperature).astype(np.float32, copy=False)
        return placed_D


def _array(tensor: Tensor) -> F32:
    array: F32 = np.ascontiguousarray(tensor.detach().numpy(), np.float32)
    return array


def _rms(rows_RD: F32, weight_D: F32) -> F32:
    mean_R1 = np.einsum("rd,rd->r", rows_RD, rows_RD)[:, None] / np.float32(rows_RD.shape[1])
    normed_RD: F32 = rows_RD / np.sqrt(mean_R1 + _EPSILON) * weight_D
    return normed_RD
