"""Off-policy values from the ranker's own exploration, through its impressions, as gate 1 computes them.

The worlds, the candidates and the truth are those of rollouts_off_policy.py. What is tried here is everything between
a list that is shown and a value: draws, what is logged of them, and how it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts_off_policy import TRUTH, Exploration, Found, Lists, click_model, lists_of, truth
from benchmarks.rollouts_shop import SHOWN, Shop, click_chance
from benchmarks.shown_lists import logged_lists, shown_list
from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.ranker.exploration import Exploration as RankersExploration
from headrace.ranker.impressions import Shown
from headrace.trainer.off_policy_values import LoggedValues
from headrace.trainer.paired_scores import Scored

# features that tell what the candidate and the logging release think, and what is true
_CANDIDATE, _LOGGED, _LIKING = range(3)
_SECOND_US = 1_000_000


def logged_run(seed: int, errors: Sequence[float], active: int, days: int, exploration: Exploration) -> list[Found]:
    """By candidate and method, the truth and what gate 1 would say of it in a world of its own."""
    rng = np.random.default_rng(seed)
    shop = Shop(rng, active)
    many, few = shop.visits(rng, 0, TRUTH * days), shop.visits(rng, 0, days)
    found: list[Found] = []
    for error in errors:
        true_value = truth(lists_of(rng, many, error))
        lists = logged_lists(_shown(rng, lists_of(rng, few, error), exploration, seed))
        candidate, model = lists.features_RF[:, _CANDIDATE], click_model(lists.features_RF[:, _LOGGED].astype(float))
        expected = Scored.of(lists.features_RF[:, _LOGGED], model.astype(np.float32))
        snips, robust = LoggedValues(lists).of(Scored.of(candidate, candidate), expected)
        found.append({"gate 1, snips": (true_value, snips), "gate 1, doubly robust": (true_value, robust)})
    return found


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
