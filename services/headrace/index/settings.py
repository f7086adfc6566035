"""What a deployment may change about the index."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.runtime.settings import ServingSettings
from headrace.runtime.shard_addresses import ReplicasSetting
from headrace.runtime.shards import ShardSetting


class IndexSettings(ServingSettings):
    """`HEADRACE_INDEX_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_INDEX_", frozen=True)

    port: int = Field(7404, ge=0, le=65535, description="port to listen on; 0 chooses a free one")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="where vectors live; auto takes a GPU if there is"
    )
    segment: Literal["auto", "flat", "compact", "cells"] = Field(
        "auto",
        description="in main memory: flat scans vectors, compact an int8 copy, cells parts of it when there are many",
    )
    cells_from: int = Field(250_000, ge=1_000, description="rows from which on a search looks into some cells only")
    recall_goal: float = Field(0.97, gt=0.5, le=1, description="share of the best that some cells are to hold")
    search_threads: int = Field(0, ge=0, le=256, description="threads that search; 0: one a core")
    max_searches: int = Field(256, ge=1, description="searches that run or wait; more are refused")
    check_share: float = Field(
        0.01, ge=0, le=1, description="share of queries that are answered again in the plainest way, to tell the recall"
    )
    max_ordinal: int = Field((1 << 24) - 1, ge=0, lt=(1 << 32) - 1, description="highest item ordinal taken")
    max_wait_s: float = Field(5.0, gt=0, description="longest wait for min_sequence in a call without a deadline")
    pipeline_batches: int = Field(16, ge=1, description="batches of one stream that may be under way")
    wal_file_mb: int = Field(64, ge=1, description="size at which a new write-ahead log file is begun")
    snapshot_every_mb: int = Field(256, ge=1, description="write-ahead log that a restart replays at most")
    snapshot_every_s: float = Field(600.0, gt=0, description="age of the oldest record that a restart replays")
    watch_snapshot_limit_s: float = Field(60.0, gt=0, description="time a follower has to take its snapshot")
    shard: ShardSetting = Field("0/1", description="which shard this is, of how many: NUMBER/COUNT")
    peers: ReplicasSetting = Field(
        "", description="addresses of the shard's replicas, separated by commas; this one may be among them"
    )
    peers_wait_s: float = Field(5.0, ge=0, description="time that a start waits for a replica to catch up from")
    compare_every_s: float = Field(5.0, gt=0, description="seconds between comparisons with the replicas")
