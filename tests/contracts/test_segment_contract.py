"""What every kind of segment promises, checked against a dict and NumPy."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from headrace.index.devices import compiled_kernels
from headrace.index.flat_segment import FlatSegment
from headrace.index.gpu_segment import GpuOwner, GpuSegment
from headrace.index.rows import NO_ORDINALS, Change, Rows
from headrace.index.segment import Segment, SegmentView
from headrace.index.self_check import DIMENSION, SegmentCheckError, check_segment, nearest_by_numpy

SCANS = compiled_kernels()
KINDS = ("flat", "torch", *SCANS, *(["cells"] if SCANS else []))
Make = Callable[[int], Segment]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "flat":
        yield FlatSegment
        return
    if request.param in SCANS:
        from headrace.index.compact_segment import CompactSegment

        yield lambda dimension: CompactSegment(dimension, request.param)
        return
    if request.param == "cells":
        from headrace.index.cell_segment import CellSegment

        # so few rows that cells are made and split all the time, and all of them looked into
        yield lambda dimension: CellSegment(dimension, cells_from=8, recall_goal=1.0)
        return
    owner = GpuOwner("cpu")
    yield lambda dimension: GpuSegment(dimension, owner)
    owner.close()


D = 3
ORDINALS = st.integers(0, 40)
# few distinct whole numbers: ties are common, and sums are exact
VECTORS = st.lists(st.integers(-2, 2), min_size=D, max_size=D)
Model = dict[int, tuple[list[int], int]]


def change_of(upserts: dict[int, list[int]], deletes: set[int], sequence: int, dimension: int = D) -> Change:
    numbers = np.full(len(upserts), sequence, np.int64)
    vectors = np.array(list(upserts.values()), np.float32).reshape(len(upserts), dimension)
    rows = Rows(np.array(list(upserts), np.uint32), vectors, numbers, numbers * 10)
    return Change(rows, np.array(sorted(deletes - set(upserts)), np.uint32), sequence, sequence * 10)


class Machine(RuleBasedStateMachine):
    make: Make

    def __init__(self) -> None:
        super().__init__()
        self.segment = self.make(D)
        self.model: Model = {}
        self.sequence = 0
        self.pins = ExitStack()
        self.pinned: list[tuple[SegmentView, Model, int]] = []

    def teardown(self) -> None:
        self.pins.close()

    @rule(upserts=st.dictionaries(ORDINALS, VECTORS, max_size=12), deletes=st.sets(ORDINALS, max_size=6))
    def write(self, upserts: dict[int, list[int]], deletes: set[int]) -> None:
        self.sequence += 1
        self.segment.write(change_of(upserts, deletes, self.sequence))
        for ordinal in deletes - set(upserts):
            self.model.pop(ordinal, None)
        self.model.update({ordinal: (vector, self.sequence) for ordinal, vector in upserts.items()})

    @rule(
        queries=st.lists(VECTORS, min_size=1, max_size=3),
        k=st.integers(1, 50),
        allowed=st.none() | st.sets(ORDINALS),
        bitmap_bytes=st.integers(1, 8),
        denied=st.sets(st.integers(0, 5000), max_size=5),
    )
    def search(
        self, queries: list[list[int]], k: int, allowed: set[int] | None, bitmap_bytes: int, denied: set[int]
    ) -> None:
        bits = np.zeros(bitmap_bytes * 8, np.bool_)
        bits[[ordinal for ordinal in allowed or () if ordinal < len(bits)]] = True
        allow = None if allowed is None else np.packbits(bits, bitorder="little")
        found = self.segment.search(
            np.array(queries, np.float32), k, allow, np.array(sorted(denied), np.uint32) if denied else NO_ORDINALS
        )
        left = [o for o in self.model if o not in denied and (allowed is None or (o < len(bits) and bits[o]))]
        vectors = np.array([self.model[o][0] for o in left], np.float32).reshape(len(left), D)
        expected = nearest_by_numpy(np.array(queries, np.float32), np.array(left, np.uint32), vectors, k)
        np.testing.assert_array_equal(found.ordinals_QK, expected.ordinals_QK)
        np.testing.assert_array_equal(found.scores_QK, expected.scores_QK)
        np.testing.assert_array_equal(found.counts_Q, expected.counts_Q)
        assert found.sequence == self.sequence

    @rule(ordinals=st.lists(st.integers(0, 5000) | ORDINALS, max_size=8))
    def get(self, ordinals: list[int]) -> None:
        rows = self.segment.get(np.array(ordinals, np.uint32))
        there = [ordinal for ordinal in ordinals if ordinal in self.model]
        assert rows.ordinals.tolist() == there
        assert rows.vectors_ND.tolist() == [self.model[ordinal][0] for ordinal in there]
        assert rows.sequences.tolist() == [self.model[ordinal][1] for ordinal in there]
        assert rows.log_offsets.tolist() == [self.model[ordinal][1] * 10 for ordinal in there]

    @precondition(lambda self: len(self.pinned) < 3)
    @rule()
    def pin(self) -> None:
        view = self.pins.enter_context(self.segment.view())
        self.pinned.append((view, dict(self.model), self.sequence))

    @rule()
    def release_all_pins(self) -> None:
        self.pins.close()
        self.pinned = []

    @rule()
    def restore_into_a_new_segment(self) -> None:
        restored = self.make(D)
        with self.segment.view() as view:
            restored.fill(view.chunks(), view.sequence, view.log_offset)
        self.pins.close()
        self.pinned = []
        self.segment = restored

    @invariant()
    def views_keep_what_they_saw(self) -> None:
        for view, model, sequence in self.pinned:
            rows = Rows.concatenated(D, view.chunks())
            assert view.sequence == sequence
            assert rows.ordinals.tolist() == sorted(model)
            assert rows.vectors_ND.tolist() == [model[ordinal][0] for ordinal in sorted(model)]

    @invariant()
    def it_counts_its_items(self) -> None:
        assert len(self.segment) == len(self.model)
        assert (self.segment.sequence, self.segment.log_offset) == (self.sequence, self.sequence * 10)


@pytest.mark.skipif(not SCANS and "TEST_REQUIRE_SCAN" not in os.environ, reason="the scan is not compiled here")
def test_the_scan_is_compiled() -> None:
    assert SCANS[-1] == "portable"


def test_a_segment_does_what_a_dict_and_numpy_do(make: Make) -> None:
    class ThisMachine(Machine):
        pass

    ThisMachine.make = staticmethod(make)
    run_state_machine_as_test(
        ThisMachine,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


def test_a_right_segment_passes_the_start_up_check(make: Make) -> None:
    check_segment(make(DIMENSION))


def test_more_ties_than_fetched_at_first_go_by_ordinal(make: Make) -> None:
    segment = make(D)
    ordinals = np.random.default_rng(1).permutation(5000)
    segment.write(change_of({int(o): [1, 2, 3] for o in ordinals}, set(), 1))
    found = segment.search(np.array([[1, 1, 1], [-1, 0, 0]], np.float32), 10)
    assert found.ordinals_QK.tolist() == [list(range(10))] * 2


def test_growth_keeps_every_row(make: Make) -> None:
    segment = make(D)
    for start in range(0, 6000, 500):
        segment.write(change_of({o: [o, 1, 0] for o in range(start, start + 500)}, set(), start + 1))
    rows = segment.get(np.arange(6000, dtype=np.uint32))
    assert rows.vectors_ND[:, 0].tolist() == list(range(6000))
    assert segment.search(np.array([[1, 0, 0]], np.float32), 3).ordinals_QK.tolist() == [[5999, 5998, 5997]]


def test_rewriting_all_items_for_ever_needs_no_more_memory(make: Make) -> None:
    segment = make(D)
    items = {o: [o % 7, 1, 0] for o in range(400)}
    segment.write(change_of(items, set(), 1))
    segment.write(change_of(items, set(), 2))
    before = segment.memory_bytes()
    for sequence in range(3, 60):
        segment.write(change_of(items, set(), sequence))
    # rows that lie in cells leave a few places of their blocks free
    assert segment.memory_bytes() <= 1.01 * before


def test_a_search_sees_all_of_a_change_or_nothing_of_it(make: Make) -> None:
    segment = make(2)
    items = range(300)

    def write(sequence: int) -> None:
        # every change gives all items one common value: any mixture shows
        segment.write(change_of({o: [sequence, 1] for o in items}, set(), sequence, 2))

    write(1)
    stop = threading.Event()

    def write_until_stopped() -> None:
        sequence = 1
        while not stop.is_set():
            sequence += 1
            write(sequence)

    writer = threading.Thread(target=write_until_stopped)
    writer.start()
    try:
        seen, searches = set(), 0
        while searches < 300 or len(seen) < 3:
            searches += 1
            found = segment.search(np.array([[1, 0]], np.float32), 300)
            assert np.unique(found.scores_QK).tolist() == [found.sequence]
            assert found.ordinals_QK[0].tolist() == list(items)
            seen.add(found.sequence)
    finally:
        stop.set()
        writer.join()


def test_searches_made_at_the_same_time_all_get_their_own_answers(make: Make) -> None:
    segment = make(1)
    segment.write(change_of({o: [o + 1] for o in range(200)}, set(), 1, 1))
    wrong: list[int] = []

    def search(k: int) -> None:
        for _ in range(20):
            found = segment.search(np.array([[1.0]] * (k % 3 + 1), np.float32), k)
            if found.ordinals_QK.tolist() != [list(range(199, 199 - k, -1))] * (k % 3 + 1):
                wrong.append(k)

    threads = [threading.Thread(target=search, args=(k,)) for k in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class ForgetsDeletes(FlatSegment):
    kind = "forgets-deletes"

    def write(self, change: Change) -> None:
        super().write(Change(change.upserts, NO_ORDINALS, change.sequence, change.log_offset))


class IgnoresFilters(FlatSegment):
    kind = "ignores-filters"

    def search(self, queries_QD, k, allow=None, deny=NO_ORDINALS):  # type: ignore[no-untyped-def]  # noqa: N803
        return super().search(queries_QD, k)


class RoundsToTenBits(FlatSegment):
    kind = "rounds"

    def write(self, change: Change) -> None:
        rows = change.upserts
        rounded = np.round(rows.vectors_ND / 4) * 4
        super().write(
            Change(
                Rows(rows.ordinals, rounded, rows.sequences, rows.log_offsets),
                change.deletes,
                change.sequence,
                change.log_offset,
            )
        )


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [(ForgetsDeletes, "came back"), (IgnoresFilters, "came back"), (RoundsToTenBits, "differ from NumPy's")],
)
def test_a_wrong_segment_fails_the_start_up_check(kind: type[FlatSegment], complaint: str) -> None:
    with pytest.raises(SegmentCheckError, match=complaint):
        check_segment(kind(DIMENSION))
