"""Off-policy values from the ranker's own exploration, through its impressions, as gate 1 computes them.

The worlds, the candidates and the truth are those of rollouts_off_policy.py. What is tried here is everything between
a list that is shown and a value: draws, what is logged of them, and how it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts_off_policy import Exploration, Found, Lists, click_model, in_a_world
from benchmarks.rollouts_shop import SHOWN, click_chance
from benchmarks.shown_lists import logged_lists, shown_list
from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.ranker.exploration import Exploration as RankersExploration
from headrace.ranker.impressions import Shown
from headrace.trainer.analysis.evidence import Value
from headrace.trainer.off_policy_values import LoggedValues
from headrace.trainer.paired_scores import Scored

# features that tell what the candidate and the logging release think, and what is true
_CANDIDATE, _LOGGED, _LIKING = range(3)
_SECOND_US = 1_000_000


def logged_run(seed: int, errors: Sequence[float], active: int, days: int, exploration: Exploration) -> list[Found]:
    """By candidate and method, the truth and what gate 1 would say of it in a world of its own."""
    return in_a_world(seed, errors, active, days, lambda rng, lists: _valued(rng, lists, exploration, seed))


def _valued(rng: np.random.Generator, shown: Lists, exploration: Exploration, seed: int) -> dict[str, Value]:
    lists = logged_lists(_shown(rng, shown, exploration, seed))
    candidate, model = lists.features_RF[:, _CANDIDATE], click_model(lists.features_RF[:, _LOGGED].astype(float))
    expected = Scored.of(lists.features_RF[:, _LOGGED], model.astype(np.float32))
    snips, robust = LoggedValues(lists).of(Scored.of(candidate, candidate), expected)
    return {"gate 1, snips": snips, "gate 1, doubly robust": robust}


def _shown(
    rng: np.random.Generator, lists: Lists, exploration: Exploration, seed: int
) -> Iterator[tuple[Shown, NDArray[np.uint32]]]:
    ranker, ordinals = RankersExploration(exploration.share, exploration.temperature), np.arange(SHOWN, dtype=np.uint32)
    features = np.zeros((len(lists.person), SHOWN, len(CANDIDATE_FEATURES)), np.float32)
    features[:, :, _CANDIDATE], features[:, :, _LOGGED] = lists.candidate, lists.logged
    features[:, :, _LIKING] = lists.liking
    for row, person in enumerate(lists.person):
        scores = features[row, :, _LOGGED]
        shown = shown_list(ranker, ordinals, scores, features[row], f"{seed} {row}", f"u:{person}", row * _SECOND_US)
        chance = click_chance(shown.features[None, :, _LIKING], lists.intent[row : row + 1])[0]
        yield shown, shown.ordinals[rng.random(SHOWN) < chance]
