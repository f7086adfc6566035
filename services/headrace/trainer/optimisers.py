"""Adam or RMSProp, twice: for weights that every step moves, and for rows that only their own events move.

N items, D width, R rows of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headrace.model.growing import grown
from headrace.trainer.arrays import Arrays

# how much of the mean gradient each remembers; RMSProp follows the newest alone
MOMENTUM: Mapping[str, float] = MappingProxyType({"adam": 0.9, "rmsprop": 0.0})
_BETA2, _EPSILON = 0.99, 1e-8
_CLIP_NORM = 5.0


class DenseOptimiser:
    """Adam (or RMSProp) with linear warm-up over the parameters of a module; moves the module in place."""

    def __init__(self, module: nn.Module, rate: float, kind: str = "adam", *, warm_up_steps: int = 50) -> None:
        self._beta1 = MOMENTUM[kind]
        self._parameters = dict(module.named_parameters())
        self._rate = rate
        self._warm_up = warm_up_steps
        self._steps = 0
        self._first = {name: torch.zeros_like(value) for name, value in self._parameters.items()}
        self._second = {name: torch.zeros_like(value) for name, value in self._parameters.items()}

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """All that may move, always in the same order."""
        return list(self._parameters.values())

    def forget(self) -> None:
        """Drops the gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> bool:
        """Moves every parameter that has a gradient, clipped to a norm of 5 over all, and forgets the gradients.

        `scale` is the share of the rate that this step takes.

        Moves nothing, and says so, when a gradient is not finite.
        """
        moving = [(name, p, p.grad) for name, p in self._parameters.items() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_([p for _, p, _ in moving], _CLIP_NORM)
        if not torch.isfinite(norm):
            self.forget()
            return False
        self._steps += 1
        rate = self._rate * scale * min(1.0, self._steps / self._warm_up)
        for name, parameter, gradient in moving:
            first, second = self._first[name], self._second[name]
            first.lerp_(gradient, 1 - self._beta1)
            second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
            spread = (second / (1 - _BETA2**self._steps)).sqrt_().add_(_EPSILON)
            parameter.addcdiv_(first, spread, value=-rate / (1 - self._beta1**self._steps))
            parameter.grad = None
        return True

    def arrays(self) -> Arrays:
        first = {f"first.{name}": value.numpy() for name, value in self._first.items()}
        second = {f"second.{name}": value.numpy() for name, value in self._second.items()}
        return first | second | {"steps": np.array([self._steps])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._steps = int(arrays["steps"][0])
        for name in self._parameters:
            self._first[name].copy_(torch.from_numpy(arrays[f"first.{name}"]))
            self._second[name].copy_(torch.from_numpy(arrays[f"second.{name}"]))


class RowTable:
    """Learned rows of items with their own optimiser state: a row that is not touched does not move.

    Each row keeps one second moment, the mean over its width (as FBGEMM's row-wise optimisers do), and
    its own step count, so that the first steps of a new item are as large as anybody's first steps were.
    Rows begin at zero.
    """

    def __init__(self, width: int, rate: float, kind: str = "adam") -> None:
        self._rate = rate
        self._beta1 = MOMENTUM[kind]
        self._rows_ND = np.zeros((0, width), np.float32)
        self._first_ND = np.zeros((0, width), np.float32)
        self._second_N = np.zeros(0, np.float32)
        self._steps_N = np.zeros(0, np.int32)

    def grow(self, count: int) -> None:
        self._rows_ND = grown(self._rows_ND, count)
        self._first_ND = grown(self._first_ND, count)
        self._second_N = grown(self._second_N, count)
        self._steps_N = grown(self._steps_N, count)

    def rows(self, ordinals: NDArray[np.int64]) -> Tensor:
        """A copy of some rows: R × D."""
        return torch.from_numpy(self._rows_ND[ordinals])

    def step(self, ordinals: NDArray[np.int64], gradients_RD: NDArray[np.float32], scale: float = 1.0) -> None:
        """Moves distinct rows against their gradients, by `scale` of the rate."""
        self._steps_N[ordinals] += 1
        steps = self._steps_N[ordinals].astype(np.float32)
        first = self._beta1 * self._first_ND[ordinals] + (1 - self._beta1) * gradients_RD
        second = _BETA2 * self._second_N[ordinals] + (1 - _BETA2) * np.square(gradients_RD).mean(axis=1)
        self._first_ND[ordinals], self._second_N[ordinals] = first, second
        spread = np.sqrt(second / (1 - _BETA2**steps)) + _EPSILON
        moves = (self._rate * scale / ((1 - self._beta1**steps) * spread)).astype(np.float32)
        self._rows_ND[ordinals] -= moves[:, None] * first

    def forget(self, ordinals: NDArray[np.int64]) -> None:
        """Makes rows what they began as, with all that was known of their gradients."""
        for column in (self._rows_ND, self._first_ND, self._second_N, self._steps_N):
            column[ordinals] = 0

    def arrays(self) -> Arrays:
        return {
            "rows_ND": self._rows_ND,
            "first_ND": self._first_ND,
            "second_N": self._second_N,
            "steps_N": self._steps_N,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._rows_ND = arrays["rows_ND"].copy()
        self._first_ND = arrays["first_ND"].copy()
        self._second_N = arrays["second_N"].copy()
        self._steps_N = arrays["steps_N"].copy()
