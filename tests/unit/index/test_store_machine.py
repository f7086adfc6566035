"""The store with every kind of segment does what dicts and NumPy do, over snapshots, restarts and kills."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from headrace.index.batch import Batch
from headrace.index.devices import compiled_kernels
from headrace.index.flat_segment import FlatSegment
from headrace.index.gpu_segment import GpuOwner, GpuSegment
from headrace.index.segment import Segment
from headrace.index.self_check import nearest_by_numpy
from headrace.index.store import Store
from headrace.runtime.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError

KINDS = ("flat", "torch", *(["compact", "cells"] if compiled_kernels() else []))
Make = Callable[[int], Segment]
D = 3
NAMES = st.sampled_from(["a", "b", "c"])
ORDINALS = st.integers(0, 40)
# few distinct whole numbers: ties are common, and sums are exact; none is without length
VECTORS = st.lists(st.integers(-2, 2), min_size=D, max_size=D).filter(any)
# several rows for one item, deletes (None) among them
CHANGES = st.lists(st.tuples(ORDINALS, st.none() | VECTORS), min_size=1, max_size=25)


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "flat":
        yield FlatSegment
    elif request.param == "torch":
        owner = GpuOwner("cpu")
        yield lambda dimension: GpuSegment(dimension, owner)
        owner.close()
    elif request.param == "compact":
        from headrace.index.compact_segment import CompactSegment

        yield CompactSegment
    else:
        from headrace.index.cell_segment import CellSegment

        # so few rows that cells are made and split all the time, and all of them looked into
        yield lambda dimension: CellSegment(dimension, cells_from=8, recall_goal=1.0)


@dataclass
class Model:
    """What a space must hold."""

    items: dict[int, list[int]] = field(default_factory=dict)
    sequence: int = 0

    def batch(self, name: str, changes: list[tuple[int, list[int] | None]]) -> Batch:
        """The batch that follows on, noted as applied."""
        first = self.sequence + 1
        self.sequence += len(changes)
        for ordinal, vector in changes:
            if vector is None:
                self.items.pop(ordinal, None)
            else:
                self.items[ordinal] = vector
        return batch_of(name, first, changes)


def batch_of(name: str, first: int, changes: list[tuple[int, list[int] | None]]) -> Batch:
    ordinals = np.array([ordinal for ordinal, _ in changes], np.uint32)
    vectors = np.array([vector or [0] * D for _, vector in changes], np.float32)
    return Batch(name, first, ordinals, vectors, np.array([vector is None for _, vector in changes]), first)


class Machine(RuleBasedStateMachine):
    make: Make

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.spaces: dict[str, Model] = {}
        self.active = ""

    @initialize()
    def open(self) -> None:
        # so small that the log is in many files
        self.store = Store(self.folder, self.make, wal_file_bytes=1_000)

    def teardown(self) -> None:
        self.loop.run(self.store.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        self.loop.run(self.store.create(name, D))
        self.spaces.setdefault(name, Model())

    @rule(name=NAMES)
    def create_with_another_dimension(self, name: str) -> None:
        if name in self.spaces:
            with pytest.raises(AlreadyExistsError):
                self.loop.run(self.store.create(name, D + 1))

    @rule(name=NAMES, changes=CHANGES)
    def apply(self, name: str, changes: list[tuple[int, list[int] | None]]) -> None:
        if name not in self.spaces:
            with pytest.raises(NotFoundError):
                self.loop.run(self._applied(batch_of(name, 1, changes)))
            return
        batch = self.spaces[name].batch(name, changes)
        applied = self.loop.run(self._applied(batch))
        assert (applied.sequence, applied.gap) == (batch.last_sequence, False)

    async def _applied(self, batch: Batch):  # type: ignore[no-untyped-def]
        return await self.store.apply(batch)

    @rule(name=NAMES, changes=CHANGES, beyond=st.integers(2, 5))
    def apply_what_does_not_follow(self, name: str, changes: list[tuple[int, list[int] | None]], beyond: int) -> None:
        if name in self.spaces:
            applied = self.loop.run(self._applied(batch_of(name, self.spaces[name].sequence + beyond, changes)))
            assert (applied.sequence, applied.gap) == (self.spaces[name].sequence, True)

    @rule(name=NAMES, changes=st.lists(CHANGES, min_size=1, max_size=4))
    def snapshot_while_it_changes(self, name: str, changes: list[list[tuple[int, list[int] | None]]]) -> None:
        batches = [self.spaces[name].batch(name, one) for one in changes] if name in self.spaces else []

        async def both() -> None:
            await asyncio.gather(self.store.snapshot(), *(self._applied(batch) for batch in batches))

        self.loop.run(both())

    @rule(name=NAMES)
    def activate(self, name: str) -> None:
        if name in self.spaces:
            assert self.loop.run(self.store.activate(name)) == self.active
            self.active = name
        else:
            with pytest.raises(NotFoundError):
                self.loop.run(self.store.activate(name))

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        if name == self.active:
            with pytest.raises(FailedPreconditionError):
                self.loop.run(self.store.drop(name))
        else:
            self.loop.run(self.store.drop(name))
            self.spaces.pop(name, None)

    @rule()
    def restart(self) -> None:
        self.loop.run(self.store.close())
        self.open()

    @rule()
    def kill(self) -> None:
        # as a SIGKILL lets go of the folder: no snapshot, nothing flushed
        self.store._lock.close()
        self.store._log.close()
        self.store._writer.shutdown()
        self.store._snapshot_writer.shutdown()
        self.open()

    @rule(
        queries=st.lists(VECTORS, min_size=1, max_size=3), k=st.integers(1, 50), allowed=st.none() | st.sets(ORDINALS)
    )
    def search(self, queries: list[list[int]], k: int, allowed: set[int] | None) -> None:
        bits = np.zeros(48, np.bool_)
        bits[list(allowed or ())] = True
        allow = None if allowed is None else np.packbits(bits, bitorder="little")
        for name, model in self.spaces.items():
            found = self.store.space(name).segment.search(np.array(queries, np.float32), k, allow)
            left = [ordinal for ordinal in model.items if allowed is None or ordinal in allowed]
            vectors = np.array([model.items[ordinal] for ordinal in left], np.float32).reshape(len(left), D)
            expected = nearest_by_numpy(np.array(queries, np.float32), np.array(left, np.uint32), vectors, k)
            np.testing.assert_array_equal(found.ordinals_QK, expected.ordinals_QK)
            np.testing.assert_array_equal(found.scores_QK, expected.scores_QK)
            assert found.sequence == model.sequence

    @invariant()
    def it_holds_what_it_must(self) -> None:
        assert [space.name for space in self.store.spaces] == sorted(self.spaces)
        assert self.store.active == self.active
        for name, model in self.spaces.items():
            space = self.store.space(name)
            sequence, rows = space.all_rows()
            assert (sequence, space.ordinals().tolist()) == (model.sequence, sorted(model.items))
            assert dict(zip(rows.ordinals.tolist(), rows.vectors_ND.tolist(), strict=True)) == model.items


def test_a_store_does_what_dicts_and_numpy_do(make: Make) -> None:
    class ThisMachine(Machine):
        pass

    ThisMachine.make = staticmethod(make)
    run_state_machine_as_test(
        ThisMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
