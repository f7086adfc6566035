"""All that a deployment may change about the ranker."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.model.text.weights import UPSTREAM_SHA256
from headrace.runtime.settings import ServingSettings
from headrace.runtime.shard_addresses import ShardAddressesSetting


class RankerSettings(ServingSettings):
    """Where the peers are, how long each stage may take, and how much is taken at once."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_RANKER_", frozen=True)

    port: int = Field(7405, ge=0, le=65535, description="port to listen on; 0 chooses a free one")
    feature_store_address: ShardAddressesSetting = Field(
        "127.0.0.1:7402", description="host:port of the feature store: replicas by commas, shards by semicolons"
    )
    trainer_address: str = Field("127.0.0.1:7403", description="host:port of the trainer's registry")
    index_address: ShardAddressesSetting = Field(
        "127.0.0.1:7404", description="host:port of the index: replicas separated by commas, shards by semicolons"
    )

    track: Literal["stable", "canary"] = Field(
        "stable", description="stable: the door to both; canary: answers for people in a rollout's canary arm"
    )
    canary_address: str = Field("", description="host:port of the canary track; empty: stable answers everybody")
    canary_budget_s: float = Field(
        0.1, gt=0, description="most that an answer waits for the canary, never more than half of what is left"
    )
    max_fallbacks: int = Field(
        2, ge=1, description="answers in the making at once for people whom the canary did not answer"
    )
    force_arm_key: str = Field(
        "", repr=False, description="secret of callers that may choose the arm of a call; empty: nobody may"
    )

    default_deadline_s: float = Field(1.0, gt=0, description="time for an answer when the caller sets no deadline")
    state_budget_s: float = Field(0.15, gt=0, description="most that an answer waits for the person's state")
    search_budget_s: float = Field(0.1, gt=0, description="most that an answer waits for the index")
    score_budget_s: float = Field(0.25, gt=0, description="most that an answer waits for features and scores")
    breaker_failures: int = Field(3, ge=1, description="failures in a row after which a peer is not asked for a while")
    breaker_open_s: float = Field(0.5, gt=0, description="seconds that a failing peer is not asked")

    max_concurrent: int = Field(4, ge=1, description="answers in the making at once")
    max_waiting: int = Field(24, ge=0, description="calls that may wait for their turn; more are refused")
    cpu_threads: int = Field(2, ge=1, description="threads for words, reasons and encoding queries")

    vector_candidates: int = Field(200, ge=1, le=2_000, description="nearest items taken as candidates")
    max_candidates: int = Field(500, ge=20, le=5_000, description="candidates that are scored for one answer")
    lexical_commit_s: float = Field(0.15, gt=0, description="least time between commits of the word index")

    retry_s: float = Field(0.3, gt=0, description="pause before a lost peer is tried again")
    vectors_wait_s: float = Field(5.0, gt=0, description="time a release waits for its vectors before it says so")

    ready_wait_s: float = Field(
        20.0, ge=0, description="most that a start waits for items and the plan's release to be ready; 0: not at all"
    )

    text_folder: Path | None = Field(
        None, description="files of the text encoder that a release may need; none: the installed package"
    )
    text_digest: str = Field(UPSTREAM_SHA256, pattern="^[0-9a-f]{64}$", description="SHA-256 of text_folder's weights")

    keep_loaded: int = Field(1, ge=0, description="releases that served before and stay in memory, for a quick undo")
    most_times_slower: float = Field(
        3.0, gt=1, description="a release whose warm batch takes so many times as long as the served one's is refused"
    )
    shadow_per_s: float = Field(
        10.0, ge=0, description="most answers a second that the shadow release scores too; 0: none"
    )
    report_every_s: float = Field(1.0, gt=0, description="seconds between reports to the registry")

    explore_share: float = Field(
        0.02,
        ge=0,
        le=0.5,
        description="share of answers in an order drawn by chance, so that other orders can be valued",
    )
    explore_temperature: float = Field(
        0.5, gt=0, description="how far drawn orders stray, in standard deviations of the scores"
    )
    explore_candidates: int = Field(
        50, ge=2, le=500, description="best candidates, of those that are shown, that a drawn order is made of"
    )

    log_impressions: bool = Field(True, description="append what was shown to the event log")
    impression_interval_s: float = Field(0.2, gt=0, description="seconds between appends of impressions")
    impression_queue: int = Field(5_000, ge=1, description="impressions that may wait; more are dropped and counted")
