from __future__ import annotations

from headrace.index.delta_traces import DeltaTraces, TracedBatch


def batch(space: str, last_sequence: int, traceparent: str = "t") -> TracedBatch:
    return TracedBatch(space, last_sequence, traceparent, b"")


def test_batches_are_found_by_the_sequences_that_a_follower_has_not_seen() -> None:
    traces = DeltaTraces()
    for last_sequence in (3, 7, 9):
        traces.note(batch("a", last_sequence))
    traces.note(batch("b", 8))
    assert [one.last_sequence for one in traces.between("a", 3, 8)] == [7]
    assert [one.last_sequence for one in traces.between("a", 0, 9)] == [3, 7, 9]


def test_a_batch_without_a_trace_is_not_kept() -> None:
    traces = DeltaTraces()
    traces.note(batch("a", 1, ""))
    assert traces.between("a", 0, 9) == []
