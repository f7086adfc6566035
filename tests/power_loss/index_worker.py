"""Applies batches to an index's store, with snapshots, and notes what it acknowledged: `folder journal until`."""

from __future__ import annotations

from headrace.runtime.threads import limit_threads

limit_threads()

import asyncio
import runpy
import sys
from collections import deque
from pathlib import Path

from benchmarks.power_loss.journal import Acknowledgements
from headrace.index.store import Store

_killed = runpy.run_path(str(Path(__file__).parents[1] / "integration" / "index" / "killed_index.py"))
make, batch_after, ROWS, DIMENSION = (_killed[name] for name in ("make", "batch_after", "ROWS", "DIMENSION"))
_UNDER_WAY, _SNAPSHOT_EVERY = 4, 9
# so that one recording goes through many files
WAL_FILE_BYTES = 6_000


async def main(folder: str, journal: str, until: str) -> None:
    store = Store(Path(folder) / "index", make, wal_file_bytes=WAL_FILE_BYTES)
    acknowledgements = Acknowledgements(Path(journal))
    await store.create("s", DIMENSION)
    # what it came up with may be acknowledged: a sender asks for it and goes on from there
    sent = store.space("s").applied_sequence
    acknowledgements.note(str(sent).encode())
    under_way: deque[asyncio.Future[object]] = deque()
    while sent < int(until) or under_way:
        while sent < int(until) and len(under_way) < _UNDER_WAY:
            under_way.append(store.apply(batch_after(sent)))
            sent += ROWS
        applied = await under_way.popleft()
        acknowledgements.note(str(applied.sequence).encode())  # type: ignore[attr-defined]
        if applied.sequence // ROWS % _SNAPSHOT_EVERY == 0:  # type: ignore[attr-defined]
            await store.snapshot()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
