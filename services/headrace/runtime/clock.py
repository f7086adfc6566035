"""Wall-clock time as Unix microseconds, the unit of every stored time."""

from __future__ import annotations

import time

MICROSECONDS = 1_000_000


def now_us() -> int:
    """Unix time in microseconds."""
    return time.time_ns() // 1_000
