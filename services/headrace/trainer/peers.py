"""The processes that learn together, as the learner sees them: itself alone, or one of several.

Every process holds the whole state and folds every slice. A step's forward and backward pass is shared out, and
the gradients are added up, so that every process takes the same step; only rank 0 makes anything durable.

R distinct items of a step, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from headrace.runtime.errors import HeadraceError
from headrace.trainer.acts import Act


class PeerError(HeadraceError):
    """Another process of the learner is gone, or has come out otherwise than this one."""


class Peers(Protocol):
    """This process among those that learn together. One thread at a time may use it.

    `summed`, `agree` and `leave` are to be called by all processes in the same order. Everything that needs the others
    raises PeerError when one of them is gone.
    """

    @property
    def rank(self) -> int: ...

    def share(self, windows: int) -> NDArray[np.int64]:
        """Which of a step's windows this process works on, ascending; each is somebody's."""
        ...

    def summed(
        self, parameters: Sequence[nn.Parameter], rows_RD: NDArray[np.float32], loss: float
    ) -> tuple[NDArray[np.float32], float]:
        """R × D row gradients and loss, added up over all processes; gradients of parameters too, where they are."""
        ...

    def tell(self, act: Act) -> None:
        """As rank 0, tells all others what is done next; otherwise nothing."""
        ...

    def agree(self, finding: Callable[[], str]) -> None:
        """Compares what each process found. PeerError: not all found the same."""
        ...

    def leave(self) -> None:
        """Parts from the others, who all do the same."""
        ...


class Alone:
    """The only process: does everything, asks nobody."""

    rank = 0

    def share(self, windows: int) -> NDArray[np.int64]:
        return np.arange(windows)

    def summed(
        self, parameters: Sequence[nn.Parameter], rows_RD: NDArray[np.float32], loss: float
    ) -> tuple[NDArray[np.float32], float]:
        return rows_RD, loss

    def tell(self, act: Act) -> None:
        return

    def agree(self, finding: Callable[[], str]) -> None:
        return

    def leave(self) -> None:
        return
