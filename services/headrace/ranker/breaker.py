"""Says whether a peer is worth asking: a dead one must not cost every answer its whole budget."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Opens after `failures` in a row, for `open_s`; then one call may try whether the peer is back.

    >>> breaker = Breaker(failures=1, open_s=60)
    >>> breaker.fail()
    >>> breaker.allows()
    False
    """

    def __init__(self, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._closed_again = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= self._limit

    def allows(self) -> bool:
        if not self.is_open:
            return True
        if self._clock() < self._closed_again:
            return False
        # this one tries; the others go on without the peer until it is answered
        self._closed_again = self._clock() + self._open_s
        return True

    def succeed(self) -> None:
        self._failures = 0

    def fail(self) -> None:
        self._failures += 1
        if self.is_open:
            self._closed_again = self._clock() + self._open_s
