"""What the ranker asks of an index, whether it is one process or many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.ranker.peers import Neighbours, VectorsUpdate


class VectorIndex(Protocol):
    """Nearest vectors in each space; an empty space is the active one."""

    async def near_vector(
        self, space: str, query_D: NDArray[np.float32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        """The k allowed items nearest to a vector. DeadlineError, UnavailableError, NotFoundError."""
        ...

    async def near_items(
        self, space: str, ordinals: NDArray[np.uint32], k: int, bitmap: bytes, timeout_s: float
    ) -> Neighbours:
        """The k allowed items nearest to each item that has a vector."""
        ...

    def watch_vectors(self, space: str) -> AsyncIterator[VectorsUpdate]:
        """All vectors of a space, then every change. UnavailableError; NotFoundError: no such space."""
        ...
