"""All that a deployment may change about learning."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.model.text.weights import UPSTREAM_SHA256
from headrace.runtime.settings import ServingSettings
from headrace.runtime.shard_addresses import ShardAddressesSetting


class TrainerSettings(ServingSettings):
    """How the trainer learns, publishes and listens."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_TRAINER_", frozen=True)

    role: Literal["all", "learn", "registry"] = Field(
        "all", description="learn: learns and publishes; registry: releases, serving plan and rollouts; all: both"
    )
    port: int = Field(7403, ge=0, le=65535, description="port to listen on; 0 chooses a free one")
    index_address: ShardAddressesSetting = Field(
        "127.0.0.1:7404", description="where deltas are pushed to: replicas separated by commas, shards by semicolons"
    )
    feature_store_address: ShardAddressesSetting = Field(
        "127.0.0.1:7402", description="where training rows come from: replicas by commas, shards by semicolons"
    )
    registry_url: str = Field("", description="SQLAlchemy URL of the registry; empty: SQLite in the data folder")
    artifacts_url: str = Field("", description="where releases are kept; empty: artifacts/ in the data folder")
    lineage: str = Field("main", pattern="^[a-z0-9-]{1,40}$", description="names the line of releases and its spaces")
    beside: bool = Field(
        False, description="another lineage is to serve first: nothing is published before one does (learn role)"
    )
    mirrored: bool = Field(
        True,
        description="learn from all lists and events; false: nothing that another lineage's lists led to, to compare",
    )

    niceness: int = Field(
        10, ge=0, le=19, description="how far learning stands back for the processes that answer on the same machine"
    )
    seed: int = Field(20, description="same seed, same log, same slices: same weights")
    dimension: int = Field(64, ge=4, le=1024, description="width of vectors")
    blocks: int = Field(1, ge=1, le=8, description="Transformer blocks of the user tower")
    heads: int = Field(1, ge=1, le=16, description="attention heads of the user tower")
    max_length: int = Field(50, ge=1, le=500, description="events that the user tower sees")
    text_encoder: Literal["ngrams", "minilm"] = Field(
        "ngrams", description="reads texts: n-grams fitted to the shop's titles, or a pre-trained Transformer"
    )
    text_width: int = Field(64, ge=4, le=1024, description="width of text vectors by n-grams; minilm has its own")
    text_folder: Path | None = Field(None, description="files of the minilm encoder; none: the installed package")
    text_digest: str = Field(UPSTREAM_SHA256, pattern="^[0-9a-f]{64}$", description="SHA-256 of text_folder's weights")

    dense_rate: float = Field(2e-3, gt=0, description="learning rate of towers and projections")
    row_rate: float = Field(5e-3, gt=0, description="learning rate of items' own rows")
    optimiser: Literal["adam", "rmsprop"] = Field("adam", description="how gradients become moves")
    temperature: float = Field(12.0, gt=0, description="scores begin within ± this; learned from there")
    habit: bool = Field(True, description="let the sum of what was seen go straight into what is wanted")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of the user tower's activations left out in learning")
    input_dropout: float = Field(0.2, ge=0, lt=1, description="share of the user tower's inputs left out in learning")
    own_dropout: float = Field(0.0, ge=0, lt=1, description="share of described items known by content alone in a step")
    reversed_share: float = Field(0.0, ge=0, le=1, description="share of sequences that are read backwards")
    uniform_negatives: int = Field(512, ge=1, description="shared negatives drawn evenly from items that were ever met")
    popular_negatives: int = Field(0, ge=0, description="shared negatives drawn by decayed popularity")
    negatives_move: bool = Field(True, description="let negatives move their rows too")
    batch_targets: int = Field(256, ge=1, description="fresh events to predict a step")
    passes: int = Field(1, ge=1, description="times that a slice's sequences are gone through")
    replay_windows: int = Field(8_000, ge=1, description="sequences kept for replay")
    replay_share: float = Field(1.0, ge=0, description="replayed sequences for each fresh one, drawn anew a pass")
    distillation: float = Field(0.0, ge=0, description="how strongly replayed sequences are held to the towers before")
    anchor: float = Field(0.0, ge=0, description="how strongly items are held to their vectors of the last release")
    least_replay: int = Field(16, ge=0, description="replayed sequences a pass, at least")
    query_steps: int = Field(2, ge=0, description="steps of the query tower a slice that has something to teach it")
    covisitation_half_life_days: float = Field(
        30.0, ge=7, le=3650, description="half-life of the blend's co-visitation counts"
    )
    evaluated_states: int = Field(256, ge=0, description="events a slice by which the sources' blend is learned")
    evaluated_places: int = Field(100, ge=1, description="best places of the blend that are put in order again")
    evaluated_people: int = Field(64, ge=0, description="people a slice whose next items are predicted first")

    drift_rate_boost: float = Field(
        3.0, ge=1, description="times the towers' learning rates after a change for the worse; 1: as ever"
    )
    drift_half_life_slices: float = Field(20.0, gt=0, description="slices in which half of what was boosted is gone")
    plateau_slices: int = Field(200, ge=1, description="slices of a block; one no better than the best halves the rate")
    plateau_rate_floor: float = Field(
        1.0, gt=0, le=1, description="least factor on learning rates when nothing gets better; 1: none"
    )
    rotation_drifts: int = Field(3, ge=1, description="changes for the worse that ask for a new space of vectors")
    rotation_window_slices: int = Field(1_000, ge=1, description="slices within which they must come")
    gauge_windows: int = Field(64, ge=0, description="old sequences kept of each stretch for the gauge; 0: no gauge")
    gauge_stretches: int = Field(16, ge=2, description="stretches of log time that the gauge looks back on, at most")
    admit_after: int = Field(1, ge=1, description="events of an item before it has a row of its own")
    expire_days: float = Field(
        0.0, ge=0, description="days of log time without an event after which an item's row is zero again; 0: never"
    )

    slice_every_s: float = Field(0.4, gt=0, description="live: seconds that a slice gathers events")
    slice_events: int = Field(1_000, ge=1, description="live: a slice is learned at once when this many wait")
    catch_up_slice_events: int = Field(4_000, ge=1, description="records a slice while behind")
    delta_threshold: float = Field(0.01, ge=0, description="relative move after which a vector is sent again")
    checkpoint_every_s: float = Field(20.0, gt=0, description="seconds between checkpoints")
    publish_every_s: float = Field(30.0, gt=0, description="least seconds between releases")
    keep_releases: int = Field(20, ge=2, description="releases kept, newest first")
    skew_every_s: float = Field(3.0, gt=0, description="least seconds between measurements of what a release keeps")
    skew_states: int = Field(512, ge=1, description="newest states by which a release is held against newer vectors")
    least_skew: float = Field(
        0.97, ge=0, description="a release follows at once when its recall falls below this share"
    )
    rotate_below: float = Field(
        0.8,
        ge=0,
        description="vectors go to a new space when the last release's recall on them falls below this share; 0: never",
    )
    keep_spaces: int = Field(2, ge=2, description="embedding spaces kept in the index, the newest included")
    compact_rows: int = Field(500_000, ge=1, description="acknowledged delta rows kept before they are folded")

    activate_coverage: float = Field(
        0.99, ge=0, le=1, description="share of the active space's items, but deleted ones, that a new one must hold"
    )
    activate_recall: float = Field(
        0.95, ge=0, le=1, description="share of the true best that a new space must find before it is activated"
    )

    ranker_rate: float = Field(5e-3, gt=0, description="learning rate of the ranker network")
    ranker_batch_groups: int = Field(32, ge=1, description="training groups a step of the ranker network")
    ranker_passes: int = Field(3, ge=1, description="times that new training groups are gone through")
    ranker_replay_groups: int = Field(1_024, ge=1, description="training groups kept for replay")
    rows_every_s: float = Field(2.0, gt=0, description="seconds between looks for new training rows")
    impression_window_s: float = Field(1800.0, gt=0, description="log time in which an event answers an impression")
    pending_impressions: int = Field(2_000, ge=1, description="impressions that wait for their events, at most")

    evidence_window_s: float = Field(
        300.0, gt=0, description="log time in which what follows a list counts for gate 1: much below that of learning"
    )
    evidence_lists: int = Field(2_000, ge=1, description="newest lists by which two releases are compared for gate 1")
