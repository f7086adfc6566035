"""Lets the event loop take up new calls between two pieces of arithmetic.

A loop runs everything that is ready before it looks for new calls, and grpc.aio takes one call at each look. With
several answers' arithmetic in one go, fewer calls would be taken than come, and even those that are to be refused
would wait until their callers have given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

# looks without a new call after which none is taken to be on its way
_QUIET_LOOKS = 3
# calls that may come before the next piece of arithmetic, so that a flood does not end all answering
_MOST_CALLS = 20


class Turns:
    """One piece of arithmetic at a time, in the order of asking; nobody waits while there is only one.

    `calls` tells how many calls have come so far: while they come one after the other, they go first.
    """

    def __init__(self, calls: Callable[[], int]) -> None:
        self._calls = calls
        self._is_taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._begun_at = self._seen = self._quiet = 0
        # somebody who waited may work, and has not begun
        self.is_given = False

    async def next(self) -> None:
        """Returns when the caller may work, without another await, for a while."""
        loop = asyncio.get_running_loop()
        if self._is_taken:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    # it was given just now: the next one is to have it
                    self._end_turn()
                raise
        self._is_taken = True
        self._end_turn()

    def _end_turn(self) -> None:
        """The turn ends with this round of the loop."""
        self.is_given = False
        self._begun_at = self._seen = self._calls()
        self._quiet = 0
        asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        if not self._waiting:
            self._is_taken = False
            return
        calls = self._calls()
        self._quiet = self._quiet + 1 if calls == self._seen else 0
        self._seen = calls
        if self._quiet >= _QUIET_LOOKS or calls - self._begun_at >= _MOST_CALLS:
            self.is_given = True
            self._waiting.popleft().set_result(None)
        else:
            asyncio.get_running_loop().call_soon(self._look)
