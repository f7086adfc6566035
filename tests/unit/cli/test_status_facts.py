"""What `headrace status` says below its table."""

from __future__ import annotations

from headrace.cli.status import Status, facts_of
from headrace.v1.common_pb2 import CHANNEL_APP, CHANNEL_WEB
from headrace.v1.feature_store_pb2 import FeatureView, GetFeatureStoreStatusResponse
from headrace.v1.index_pb2 import Divergence, GetIndexStatsResponse, SpaceStats
from headrace.v1.ingest_pb2 import CleaningCount, GetIngestStatusResponse


def test_what_holds_the_vectors_is_told_with_its_reason() -> None:
    space = SpaceStats(space="main-1", vectors=12_345, segment_kind="compact-cpu", segment_reason="cpu: asked for")
    index = GetIndexStatsResponse(spaces=[space], checked_queries=40, checked_recall=0.9875)
    assert facts_of(Status(index=index)) == {
        "vectors of main-1": "12,345 by compact-cpu (cpu: asked for)",
        "searches find": "0.988 of the true best, 40 queries checked",
    }


def test_people_facts_and_views_on_their_way_are_told() -> None:
    views = [FeatureView(name="searches", back_fill_offset=1_200, back_fill_end_offset=56_000)]
    store = GetFeatureStoreStatusResponse(
        users=9_000, hot_users=1_000, devices_joined=12, dated_facts=3_400, back_filling=views
    )
    assert facts_of(Status(feature_store=store)) == {
        "people": "9,000, 1,000 of them in memory; 12 devices joined",
        "dated facts": "3,400",
        "back-filling searches": "1,200 of 56,000",
    }


def test_a_recall_that_nothing_was_checked_for_is_not_told() -> None:
    assert facts_of(Status(index=GetIndexStatsResponse(checked_recall=1.0))) == {}


def test_a_shard_and_replicas_that_differ_are_told() -> None:
    diverged = [Divergence(peer="b:1", sequence=8_192), Divergence(peer="c:1", sequence=4_096)]
    space = SpaceStats(space="main-1", segment_kind="flat-cpu", segment_reason="why", diverged=diverged)
    assert facts_of(Status(index=GetIndexStatsResponse(spaces=[space], shard=1, shards=2))) == {
        "vectors of main-1": "0 by flat-cpu (why)",
        "index shard": "1 of 2",
        "DIVERGED main-1": "from b:1 by sequence 8,192, from c:1 by sequence 4,096",
    }


def test_what_each_rule_met_is_told_by_channel() -> None:
    counts = [
        CleaningCount(rule="outlier", channel=CHANNEL_WEB, events=1_200),
        CleaningCount(rule="outlier", channel=CHANNEL_APP, events=3),
        CleaningCount(rule="cancel-unmatched", events=1),
    ]
    told = facts_of(Status(ingest=GetIngestStatusResponse(rule_counts=counts)))
    assert told["rule outlier"] == "web 1,200, app 3"
    assert told["rule cancel-unmatched"] == "unspecified 1"
