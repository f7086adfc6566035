"""Lists as a ranker shows and logs them, by its own exploration, from candidates and scores that are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import FEATURE_SCHEMA
from headrace.ranker.choosing import chosen
from headrace.ranker.exploration import Exploration
from headrace.ranker.impressions import Shown
from headrace.ranker.ranking import Ranked
from headrace.ranker.sources import Candidates


def shown_list(
    exploration: Exploration,
    ordinals: NDArray[np.uint32],
    scores: NDArray[np.float32],
    features: NDArray[np.float32],
    token: str,
    user_key: str,
    time_us: int,
    release: str = "",
) -> Shown:
    """All candidates as one page."""
    candidates = Candidates(ordinals, np.zeros(len(ordinals), np.uint8))
    ranked = Ranked(candidates, scores, features).ordered(np.lexsort((ordinals, -scores)))
    choice = chosen(ranked, slice(0, len(ordinals)), exploration, token)
    return Shown(
        attribution_token=token,
        user_key=user_key,
        release=release,
        serving_config="home",
        ordinals=choice.ranked.candidates.ordinals,
        scores=choice.ranked.scores,
        features=choice.ranked.features,
        feature_schema=FEATURE_SCHEMA,
        time_us=time_us,
        propensities=choice.propensities,
        policy=choice.policy,
    )
