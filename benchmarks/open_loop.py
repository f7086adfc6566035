"""Sends requests at their appointed times, whatever became of those before: how users come.

Latency counts from the appointed time, so that a server which holds the sender up does not look quick
(Tene, "How NOT to Measure Latency", 2015).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# an answer, named by how it came about
Send = Callable[[int], Awaitable[str]]


@dataclass(frozen=True)
class Outcomes:
    """What became of each request, in the order of sending: milliseconds, and "ok" or what went wrong."""

    ms: Floats
    what: Sequence[str]
    seconds: float

    def of(self, what: str) -> Floats:
        """Milliseconds of the requests that came out so."""
        return self.ms[np.array([each == what for each in self.what], np.bool_)]

    def share(self, what: str) -> float:
        return len(self.of(what)) / max(1, len(self.what))


def arrivals(rate: float, seconds: float, seed: int) -> Floats:
    """Seconds at which requests of a Poisson process come."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(2 * rate * seconds) + 20)
    times: Floats = np.cumsum(gaps)
    return times[times < seconds]


async def sent(times_s: Floats, send: Send) -> Outcomes:
    """Calls `send(number)` at each of `times_s` from now and waits for all of them."""
    begun = time.perf_counter()
    ms, what = np.zeros(len(times_s)), [""] * len(times_s)

    async def one(number: int, due: float) -> None:
        what[number] = await send(number)
        ms[number] = (time.perf_counter() - due) * 1e3

    calls = []
    for number, offset_s in enumerate(times_s.tolist()):
        due = begun + offset_s
        wait_s = due - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        calls.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*calls)
    return Outcomes(ms, what, time.perf_counter() - begun)


def quantiles(ms: Floats) -> dict[str, float]:
    """p50, p99 and the greatest, in milliseconds; empty when there is none."""
    if not len(ms):
        return {}
    return {
        "p50_ms": round(float(np.quantile(ms, 0.5)), 2),
        "p99_ms": round(float(np.quantile(ms, 0.99)), 2),
        "max_ms": round(float(ms.max()), 1),
    }
