"""One shard behind its replicas: one of them is asked, and the next when that one fails."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from headrace.runtime.errors import DeadlineError, HeadraceError, NotFoundError, UnavailableError

P = TypeVar("P")
T = TypeVar("T")

# a replica that failed is asked last for a while
_SUSPECT_S = 1.0


class Replicas(Generic[P]):
    """Takes turns among the replicas that did not just fail."""

    def __init__(self, peers: Sequence[P]) -> None:
        self._peers = tuple(peers)
        self._suspect_until = dict.fromkeys(range(len(peers)), 0.0)
        self._turn = 0

    async def asked(self, ask: Callable[[P, float], Awaitable[T]], timeout_s: float) -> T:
        """What the first replica that answers gives, within `timeout_s` for all of them; else the last one's error."""
        end, order = time.monotonic() + timeout_s, self._order()
        failure: HeadraceError = DeadlineError("no time left to ask a replica")
        for place, number in enumerate(order):
            left_s = end - time.monotonic()
            if left_s <= 0:
                break
            try:
                # a replica that hangs must leave time for the next one
                return await ask(self._peers[number], left_s if place == len(order) - 1 else left_s / 2)
            except (UnavailableError, DeadlineError) as error:
                self._suspect(number)
                failure = error
            except NotFoundError as error:
                # a replica that is being filled lacks what another one may have
                failure = error
        raise failure

    async def watched(self, watch: Callable[[P], AsyncIterator[T]]) -> AsyncIterator[T]:
        """The stream of one replica, until it fails: the next call takes another one."""
        number = self._order()[0]
        try:
            async for update in watch(self._peers[number]):
                yield update
        except HeadraceError:
            self._suspect(number)
            raise

    def _order(self) -> list[int]:
        self._turn += 1
        now, count = time.monotonic(), len(self._peers)
        turns = [(self._turn + step) % count for step in range(count)]
        return sorted(turns, key=lambda number: self._suspect_until[number] > now)

    def _suspect(self, number: int) -> None:
        self._suspect_until[number] = time.monotonic() + _SUSPECT_S
