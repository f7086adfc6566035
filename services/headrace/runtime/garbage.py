"""Keeps Python's cycle collector from stopping a service that holds much.

A full collection looks at every object: 0.1 s for a shop of 50,000 products, in the midst of answers. So what has
survived one is put aside (`gc.freeze`) and never looked at again; it is still freed when its last reference goes.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

# new objects before a young collection, young ones before an older one; full ones are left to `keep_small`
_THRESHOLDS = (10_000, 50, 1_000_000_000)
# soon after the start, while snapshots are loaded, and then seldom: only what came since is looked at
_FIRST_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_LATER_S = 600.0


async def keep_small(first_s: Sequence[float] = _FIRST_S, later_s: float = _LATER_S) -> None:
    """Collects and puts aside now and then, for ever."""
    gc.set_threshold(*_THRESHOLDS)
    waits = iter(first_s)
    while True:
        await asyncio.sleep(next(waits, later_s))
        gc.collect()
        gc.freeze()
