"""What a follower of a space has not been sent yet: the items that changed, never their values.

Values are read when they are sent, so a slow follower gets the newest of each item and costs four
bytes an item, however far behind it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from headrace.index.rows import NO_ORDINALS, U32
from headrace.runtime.errors import NotFoundError

# joined when there are this many pieces, so that memory stays near the number of items
_PIECES_LIMIT = 256


@dataclass(frozen=True)
class Changed:
    """Distinct ordinals whose newest values are at least as new as `sequence`."""

    ordinals: U32
    sequence: int
    log_offset: int


class Watcher:
    """Collects the ordinals that changed since the last `take`."""

    def __init__(self) -> None:
        self._pieces: list[U32] = []
        self._sequence = 0
        self._log_offset = 0
        self._changed = asyncio.Event()
        self._gone: str | None = None

    def note(self, ordinals: U32, sequence: int, log_offset: int) -> None:
        """Notes a change, after which the space is at `sequence`."""
        self._pieces.append(ordinals)
        if len(self._pieces) > _PIECES_LIMIT:
            self._pieces = [self._joined()]
        self._sequence, self._log_offset = sequence, log_offset
        self._changed.set()

    def end(self, reason: str) -> None:
        """Lets `take` raise NotFoundError from now on."""
        self._gone = reason
        self._changed.set()

    async def take(self) -> Changed:
        """What changed, as soon as anything did."""
        await self._changed.wait()
        if self._gone is not None:
            raise NotFoundError(self._gone)
        self._changed.clear()
        ordinals = self._joined()
        self._pieces = []
        return Changed(ordinals, self._sequence, self._log_offset)

    def _joined(self) -> U32:
        return np.unique(np.concatenate([NO_ORDINALS, *self._pieces]))
