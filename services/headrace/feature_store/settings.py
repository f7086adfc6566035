"""What a deployment may change about the feature store."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from headrace.feature_store.rules import Rules
from headrace.runtime.people_shards import PeopleShardSetting
from headrace.runtime.settings import ServingSettings
from headrace.runtime.shards import Shard

REDIS_SCHEMES = ("redis://", "rediss://", "redis+cluster://", "rediss+cluster://")


class FeatureStoreSettings(ServingSettings):
    """Environment variables `HEADRACE_FEATURE_STORE_*`."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_FEATURE_STORE_", frozen=True)

    port: int = Field(7402, ge=0, le=65535, description="port to listen on; 0 chooses a free one")
    history_events: int = Field(200, ge=1, le=10_000, description="product events kept a person, newest first")
    covisitation_half_life_days: float = Field(30.0, ge=7, le=3650, description="half-life of co-visitation counts")
    row_candidates: int = Field(64, ge=4, le=1000, description="candidates sampled for each training group")
    row_sample_rate: float = Field(1.0, ge=0, le=1, description="share of moments that become training groups")
    row_history_bytes: int = Field(4 << 30, ge=1 << 20, description="training rows kept on disk; the oldest go first")
    fact_horizon_days: float = Field(90.0, ge=1, le=3650, description="days that past dated facts can be asked for")
    row_chunk_bytes: int = Field(32 << 20, ge=1 << 16, description="training rows held in memory before a file")
    snapshot_every_s: float = Field(30.0, gt=0, description="seconds between snapshots of a state that changes")
    redis_url: str = Field(
        "",
        description="redis://…, rediss://… or redis+cluster://…: people's histories rest there; empty: in the process",
    )
    hot_users: int = Field(100_000, ge=0, description="people kept in memory when the rest are in a Redis")
    user_ttl_days: float = Field(0.0, ge=0, description="days of log time after which events of a history go; 0: never")
    stitch: bool = Field(True, description="let a log-in join what was done on a device to the person's own")
    shard: PeopleShardSetting = Field(
        "0/1", description="NUMBER/COUNT: this process keeps the people of one of COUNT shards, and all items"
    )
    publish_every_s: float = Field(0.075, gt=0, description="seconds between deltas to watchers of items")
    read_limit: int = Field(2000, ge=1, le=100_000, description="records read from the log at once")
    fold_slice_s: float = Field(0.015, gt=0, description="longest fold before other work on the state gets its turn")

    drift_every_s: float = Field(600.0, gt=0, description="seconds between measures of how features have moved")
    views: str = Field("", description="module whose VIEWS are counted too, such as my_shop.features; empty: none")

    @field_validator("redis_url")
    @classmethod
    def _is_known_tier(cls, url: str) -> str:
        if url and not url.startswith(REDIS_SCHEMES):
            raise ValueError(f"must be empty or begin with {', '.join(REDIS_SCHEMES)}")
        return url

    @field_validator("shard")
    @classmethod
    def _does_not_stitch(cls, text: str, info: ValidationInfo) -> str:
        # what was done on a device before its log-in may be in another shard than the person who logs in
        if Shard.parsed(text).count > 1 and info.data.get("stitch", False):
            raise ValueError("a feature store in shards can't stitch: set HEADRACE_FEATURE_STORE_STITCH=false")
        return text

    def rules(self) -> Rules:
        """The part that decides what the fold computes."""
        return Rules(
            history_events=self.history_events,
            covisitation_half_life_days=self.covisitation_half_life_days,
            row_candidates=self.row_candidates,
            row_sample_rate=self.row_sample_rate,
            user_ttl_days=self.user_ttl_days,
            fact_horizon_days=self.fact_horizon_days,
            stitch=self.stitch,
            shard=Shard.parsed(self.shard),
        )
