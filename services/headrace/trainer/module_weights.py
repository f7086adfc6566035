"""The weights of a module as a part of the learner's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from headrace.trainer.arrays import Arrays


class ModuleWeights:
    """Parameters and buffers by name; `arrays` are views, so they move with the module."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def arrays(self) -> Arrays:
        return {name: value.numpy() for name, value in self._module.state_dict().items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
