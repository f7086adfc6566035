"""An index's store in child processes that are killed at random moments: `folder kills seed`.

Every child says what it recovered, then applies batches (some under way at once, snapshots in between) and says which
sequences are acknowledged, until it is killed. What a batch holds follows from its sequence, so what the store must
hold at any sequence is known. Ends with 1 and a reason when a child recovered anything else.
"""

from __future__ import annotations

from headrace.runtime.threads import limit_threads

# OpenMP's threads do not live on in forked children
limit_threads()

import asyncio
import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path

import numpy as np

from headrace.index.batch import Batch
from headrace.index.devices import InMemory, segment_maker
from headrace.index.space import Space
from headrace.index.store import Store

ITEMS, DIMENSION, ROWS = 400, 8, 30
_UNDER_WAY, _SNAPSHOT_EVERY = 4, 9
# share of the children that are killed at work, and how long they get, at most
_AT_WORK, _LONGEST_S = 0.85, 0.08


def batch_after(sequence: int) -> Batch:
    """The one batch that follows on `sequence`: some items anew, some gone."""
    rng = np.random.default_rng(sequence)
    tombstones = rng.random(ROWS) < 0.2
    vectors = rng.standard_normal((ROWS, DIMENSION)).astype(np.float32)
    vectors[tombstones] = 0
    ordinals = rng.choice(ITEMS, ROWS, replace=False).astype(np.uint32)
    return Batch("s", sequence + 1, ordinals, vectors, tombstones, sequence)


def make(dimension: int) -> object:
    # so few rows from which on there are cells that killing meets them too
    return segment_maker("cpu", InMemory("auto", cells_from=100, recall_goal=1.0)).make(dimension)


class Expected:
    """A space to which the same batches were applied, without a disk."""

    def __init__(self) -> None:
        self.space = Space("s", DIMENSION, segment_maker("cpu", InMemory("flat")).make(DIMENSION))

    def at(self, sequence: int) -> Space:
        while self.space.applied_sequence < sequence:
            self.space.take(batch_after(self.space.applied_sequence))
        return self.space


def fingerprint(space: Space) -> str:
    """What a space holds and what it was made of."""
    return f"{space.digest().sha256} {space.rolling_hash.chain}".replace(", ", "-")


async def apply_for_ever(folder: Path, say: int) -> None:
    store = Store(folder, make, wal_file_bytes=6_000)  # type: ignore[arg-type]
    await store.create("s", DIMENSION)
    space = store.space("s")
    os.write(say, f"at {space.applied_sequence} {fingerprint(space)}\n".encode())
    sent, under_way, snapshots = space.applied_sequence, deque[asyncio.Future[object]](), set()
    while True:
        while len(under_way) < _UNDER_WAY:
            under_way.append(store.apply(batch_after(sent)))  # type: ignore[arg-type]
            sent += ROWS
        applied = await under_way.popleft()
        os.write(say, f"acknowledged {applied.sequence}\n".encode())  # type: ignore[attr-defined]
        if applied.sequence // ROWS % _SNAPSHOT_EVERY == 0:  # type: ignore[attr-defined]
            task = asyncio.create_task(store.snapshot())
            snapshots.add(task)
            task.add_done_callback(snapshots.discard)


Work = Callable[[Path, int], Coroutine[None, None, None]]


def killed(folder: Path, moments: random.Random, work: Work) -> list[list[str]]:
    """What a child said before it was killed, words by line: mostly at work, now and then while it recovers."""
    hear, say = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hear)
        asyncio.run(work(folder, say))
    os.close(say)
    said = b""
    if moments.random() < _AT_WORK:
        said = os.read(hear, 1 << 16)
    time.sleep(moments.uniform(0, _LONGEST_S))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(hear, 1 << 16):
        said += part
    os.close(hear)
    # what stands after the last newline was not finished
    return [line.split() for line in said.decode().split("\n")[:-1]]


def main(folder: Path, kills: int, seed: int, work: Work = apply_for_ever) -> str:
    """The reason for which the store is not as good as its word; empty when it is."""
    moments, expected = random.Random(seed), Expected()
    acknowledged = recovered = 0
    for _ in range(kills):
        lines = killed(folder, moments, work)
        for word, number, *found in lines:
            sequence = int(number)
            if word == "acknowledged":
                acknowledged = max(acknowledged, sequence)
                continue
            recovered += 1
            if sequence < acknowledged:
                return f"{acknowledged} was acknowledged, {sequence} came back"
            if found != fingerprint(expected.at(sequence)).split():
                return f"what came back at {sequence} is not what was sent"
    if recovered < kills // 2 or not acknowledged:
        return f"only {recovered} of {kills} children came up, {acknowledged} acknowledged: nothing is shown"
    print(f"{kills} kills, {recovered} recoveries, {acknowledged // ROWS} batches acknowledged")
    return ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])) or 0)
