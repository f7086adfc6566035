"""An index's store that takes over from a replica in child processes that are killed at random moments:
`folder kills seed`.

As in `killed_index`, but every child goes on by batches and by adopting a space that is further, in turn. Ends with 1
and a reason when a child recovered anything but what was there before an adoption or after it.
"""

from __future__ import annotations

from headrace.runtime.threads import limit_threads

limit_threads()

import os
import sys
from pathlib import Path

from killed_index import DIMENSION, ROWS, Expected, batch_after, fingerprint, main, make

from headrace.index.space import Space
from headrace.index.store import Store

_FURTHER = 5


def replica_at(sequence: int, ahead: Space) -> Space:
    """A copy of `ahead` as a replica would send it at a sequence."""
    while ahead.applied_sequence < sequence:
        ahead.take(batch_after(ahead.applied_sequence))
    segment = make(DIMENSION)
    with ahead.segment.view() as view:
        segment.fill(list(view.chunks()), view.sequence, view.log_offset)  # type: ignore[attr-defined]
    return Space("s", DIMENSION, segment, ahead.rolling_hash)  # type: ignore[arg-type]


async def adopt_for_ever(folder: Path, say: int) -> None:
    store, ahead = Store(folder, make, wal_file_bytes=6_000), Expected().space  # type: ignore[arg-type]
    await store.create("s", DIMENSION)
    space = store.space("s")
    os.write(say, f"at {space.applied_sequence} {fingerprint(space)}\n".encode())
    while True:
        assert await store.adopt(replica_at(space.applied_sequence + _FURTHER * ROWS, ahead))
        os.write(say, f"acknowledged {space.applied_sequence}\n".encode())
        for _ in range(_FURTHER):
            applied = await store.apply(batch_after(space.applied_sequence))
            os.write(say, f"acknowledged {applied.sequence}\n".encode())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), adopt_for_ever) or 0)
