"""Keeps what a trainer keeps, and notes what is durable: `folder journal steps`.

A step is an act of learning with its deltas; after some come a checkpoint, a compaction, a release with its files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.power_loss.journal import Acknowledgements
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.atomic import sha256
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog, Entry
from headrace.trainer.deltas import Deltas
from headrace.trainer.registry import Part, Registry, Release, name_of, open_registry

DIMENSION, ROWS = 4, 6


def deltas_of(step: int) -> Deltas:
    """What a step changes: the same in every run."""
    chance = np.random.default_rng(step)
    ordinals = np.sort(chance.choice(40, ROWS, replace=False)).astype(np.uint32)
    tombstones = (chance.random(ROWS) < 0.1).astype(np.uint8)
    vectors = chance.standard_normal((ROWS, DIMENSION)).astype(np.float32) * (1 - tombstones)[:, None]
    return Deltas(ordinals, vectors.astype(np.float32), tombstones)


def open_log(folder: Path) -> DeltaLog:
    return DeltaLog(folder / "trainer" / "deltas.db", "main", DIMENSION)


def open_releases(folder: Path) -> tuple[Registry, ArtifactStore]:
    registry = open_registry(f"sqlite:///{folder / 'trainer' / 'registry.db'}")
    return registry, ArtifactStore(str(folder / "artifacts"))


class Keeping:
    """The stores of one trainer."""

    def __init__(self, folder: Path, journal: Path) -> None:
        self._log = open_log(folder)
        self._checkpoints = Checkpoints(folder / "trainer" / "checkpoints")
        self._registry, self._artifacts = open_releases(folder)
        self._acknowledgements = Acknowledgements(journal)

    def run(self, steps: int) -> None:
        known = self._log.journal(0)
        first = known[-1].number + 1 if known else 1
        self._tell("entry", first - 1)
        for step in range(first, steps + 1):
            self._log.commit(Entry(step, "events", step - 1, step, "d"), deltas_of(step), log_offset=step)
            self._tell("entry", step)
            if step % 7 == 0:
                self._checkpoints.save(step, {"step": step}, {"values": np.full(500, step, np.float32)})
                self._tell("checkpoint", step)
            if step % 10 == 0:
                self._log.compact(self._log.space, self._log.last_sequence - 2 * ROWS, keep_rows=4 * ROWS)
            if step % 5 == 0:
                self._publish(step)
        self._registry.close()
        self._log.close()

    def _publish(self, step: int) -> None:
        number = self._registry.reserve_number()
        data = bytes([number % 256]) * 3_000
        digest = self._artifacts.write(f"releases/{name_of(number)}/weights", data)
        parts = (Part("weights", digest, len(data)),)
        facts = ("", "main", self._log.space, DIMENSION, self._log.last_sequence, step, "schema", parts, {}, 1)
        self._registry.add(Release(name_of(number), *facts, sha256(data)))
        self._tell("release", number)

    def _tell(self, what: str, number: int) -> None:
        self._acknowledgements.note(json.dumps([what, number]).encode())


if __name__ == "__main__":
    Keeping(Path(sys.argv[1]), Path(sys.argv[2])).run(int(sys.argv[3]))
