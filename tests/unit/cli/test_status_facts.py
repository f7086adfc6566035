"""What `headrace status` says below its table."""

from __future__ import annotations

from headrace.cli.status import Status, facts_of
from headrace.v1.index_pb2 import GetIndexStatsResponse, SpaceStats


def test_what_holds_the_vectors_is_told_with_its_reason() -> None:
    space = SpaceStats(space="main-1", vectors=12_345, segment_kind="compact-cpu", segment_reason="cpu: asked for")
    index = GetIndexStatsResponse(spaces=[space], checked_queries=40, checked_recall=0.9875)
    assert facts_of(Status(index=index)) == {
        "vectors of main-1": "12,345 by compact-cpu (cpu: asked for)",
        "searches find": "0.988 of the true best, 40 queries checked",
    }


def test_a_recall_that_nothing_was_checked_for_is_not_told() -> None:
    assert facts_of(Status(index=GetIndexStatsResponse(checked_recall=1.0))) == {}
