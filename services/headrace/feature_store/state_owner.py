"""The one thread that owns a state, and reads between its jobs.

Jobs run one after the other, so nothing is locked and nothing is torn. Where none is running or waits, a read takes
place at once on the event loop, which is the only one that could begin a job meanwhile: no hop to another thread
(0.1 ms). Else it is a job, and a fold that goes on ends its slice for it after the record in hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class StateOwner:
    """Runs jobs on one thread. To be used from one event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feature-store-state")
        # each written by one thread only: the loop's, and the owner's
        self._begun = self._ended = 0
        self._readers = 0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` answers. A caller that is cancelled does not stop it."""
        self._begun += 1
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, self._job, work))

    def _job(self, work: Callable[[], T]) -> T:
        try:
            return work()
        finally:
            self._ended += 1

    async def read(self, work: Callable[[], T]) -> T:
        """The same for short work that changes nothing: as soon as the state is whole."""
        if self._begun == self._ended:
            return work()
        self._readers += 1
        try:
            return await self.run(work)
        finally:
            self._readers -= 1

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits to read: a long job should make room."""
        return self._readers > 0

    def close(self) -> None:
        """Waits for what was begun."""
        self._thread.shutdown()
