"""A space as a replica gets it: all rows as of one sequence, with what wrote each."""

# N rows

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager

from headrace.index.following import Lease
from headrace.index.rows import Rows
from headrace.index.segment import SegmentView


async def copied_rows(view: SegmentView, readers: Executor, pins: ExitStack, limit_s: float) -> AsyncIterator[Rows]:
    """The rows of a view that `pins` hold, by ascending ordinal in pieces of a few thousand at most.

    UnavailableError when the replica takes longer than `limit_s`: the rows are kept for it alone.
    """
    loop = asyncio.get_running_loop()
    with Lease(_pinned(view, pins), limit_s) as lease:
        chunks = view.chunks()
        while (rows := await loop.run_in_executor(readers, lease.read, chunks)) is not None:
            yield rows


@contextmanager
def _pinned(view: SegmentView, pins: ExitStack) -> Iterator[SegmentView]:
    with pins:
        yield view
