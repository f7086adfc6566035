"""Named arrays: the form in which every part of the learner's state is kept and brought back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


class Kept(Protocol):
    """A part of the state: `restore(arrays())` on a new one gives an equal one."""

    def arrays(self) -> Arrays: ...

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None: ...


def gathered(parts: Mapping[str, Kept]) -> Arrays:
    """The arrays of all parts, each under its part's name."""
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.arrays().items()}


def scatter(parts: Mapping[str, Kept], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Brings every part back from what `gathered` gave."""
    for name, part in parts.items():
        prefix = f"{name}."
        part.restore({key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)})


def packed_json(value: object) -> NDArray[np.uint8]:
    """Anything that JSON can say, as bytes in an array."""
    return np.frombuffer(json.dumps(value, separators=(",", ":")).encode(), np.uint8).copy()


def unpacked_json(array: NDArray[Any]) -> Any:
    """What `packed_json` was given (JSON has no types: the caller knows them)."""
    return json.loads(array.tobytes())
