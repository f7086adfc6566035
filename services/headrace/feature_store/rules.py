"""What decides the result of a fold: the same records and rules always give the same state."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from headrace.model.candidates import FEATURE_SCHEMA
from headrace.runtime.shards import WHOLE, Shard

# 6: a person's purchases outlast the newest events
STATE_VERSION = 6


@dataclass(frozen=True, slots=True)
class Rules:
    """How long histories are, how fast co-visitation fades, which training rows, people and past facts are kept."""

    history_events: int = 200
    covisitation_half_life_days: float = 30.0
    row_candidates: int = 64
    row_sample_rate: float = 1.0
    # 0: for ever
    user_ttl_days: float = 0.0
    fact_horizon_days: float = 90.0
    # whether a log-in joins a device to a person
    stitch: bool = True
    # whose histories, counts and training groups are kept; items are the same in every shard
    shard: Shard = WHOLE

    def fingerprint(self) -> str:
        """Changes when the rules, the features or the form of the state do."""
        facts = json.dumps([STATE_VERSION, FEATURE_SCHEMA, asdict(self)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()
