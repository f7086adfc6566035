"""Scores of candidates in one batch: by the served release, or by a plain rule before there is one."""

# C candidates, F features, L history length, D width

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import CANDIDATE_FEATURES, candidate_features, fill_vector_features
from headrace.model.history import History
from headrace.model.items import POPULARITY_COLUMNS, POPULARITY_FEATURES, Items
from headrace.ranker.served import Served

# before the first release: what the person did and what goes with it, then what is popular
_RULE = {
    "own_purchases": 1.0,
    "own_carts": 0.6,
    "own_views": 0.4,
    "own_basket_share_decayed": 1.0,
    "covisitation": 1.0,
    "relative_log_purchases_7d": 0.6,
    "relative_log_purchases_30d": 0.3,
    "relative_log_views_1d": 0.3,
    "relative_log_views_7d": 0.3,
}
_RULE_WEIGHTS_F = np.array([_RULE.get(name, 0.0) for name in CANDIDATE_FEATURES], np.float32)

_MOST_EXPLAINED = 50
_STRONGEST = 3


@dataclass(frozen=True, slots=True)
class Person:
    """Who is answered: history, the log's time, and where the served towers put them (None: nowhere)."""

    history: History
    now_us: int
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """One score and one row of features a candidate, and the chance of a click where a release tells it."""

    scores: NDArray[np.float32]
    features: NDArray[np.float32]
    clicks: NDArray[np.float32] | None = None


def user_vector(served: Served, history: History, now_us: int) -> NDArray[np.float32] | None:
    """Where the person is in the space of the release, a new one too; None when that is nowhere."""
    vector_D = served.model.user_vector(history, served.rows(history.ordinals), now_us)
    return vector_D if vector_D.any() else None


def query_vector(served: Served, query: str) -> NDArray[np.float32] | None:
    """Where the words point; None when they point nowhere."""
    vector_D = served.model.query_vectors([query])[0]
    return vector_D if vector_D.any() else None


def scored(served: Served | None, person: Person, items: Items, candidates: NDArray[np.uint32]) -> Scored:
    """Features and scores of distinct candidates for a person."""
    features_CF = candidate_features(person.history, items, candidates, person.now_us)
    if served is None:
        return Scored(features_CF @ _RULE_WEIGHTS_F, features_CF)
    if person.vector is not None and len(person.history) and len(candidates):
        # exact, from memory: the index's own scores cover only what it found. Someone without history is
        # nowhere in particular: training rows have no scores for them either
        fill_vector_features(features_CF, served.rows(candidates) @ person.vector)
    if not len(candidates):
        return Scored(np.zeros(0, np.float32), features_CF)
    scores_C, clicks_C = served.model.scores_and_clicks(features_CF)
    return Scored(scores_C, features_CF, clicks_C)


def popularity(items: Items) -> NDArray[np.float32]:
    """How popular each item is at all half-lives together; higher is more."""
    decayed_NF = items.features_NF[: items.count, POPULARITY_COLUMNS] - items.decay_maxima[: len(POPULARITY_FEATURES)]
    total_N: NDArray[np.float32] = np.maximum(decayed_NF, -12.0).sum(axis=1)
    return total_N


def strongest_features(
    served: Served | None, features_CF: NDArray[np.float32], shown: NDArray[np.intp]
) -> list[Sequence[str]]:
    """For each of `shown` the features that raised its score most, of all candidates' (C × F).

    A feature's weight is what the score loses when the candidates' mean stands in its place. At most
    the first 50 are explained.
    """
    explained_CF = features_CF[shown[:_MOST_EXPLAINED]]
    mean_F = features_CF.mean(axis=0) if len(features_CF) else np.zeros(len(CANDIDATE_FEATURES), np.float32)
    gains_CF = _gains(served, explained_CF, mean_F)
    names: list[Sequence[str]] = []
    for gains_F in gains_CF:
        best = np.argsort(-gains_F, kind="stable")[:_STRONGEST]
        names.append([CANDIDATE_FEATURES[place] for place in best if gains_F[place] > 1e-6])
    return names + [()] * (len(shown) - len(names))


def _gains(served: Served | None, features_CF: NDArray[np.float32], mean_F: NDArray[np.float32]) -> NDArray[np.float32]:
    if served is None:
        linear_CF: NDArray[np.float32] = (features_CF - mean_F) * _RULE_WEIGHTS_F
        return linear_CF
    count, width = features_CF.shape
    if not count:
        return features_CF
    replaced = np.repeat(features_CF[:, None, :], width, axis=1)
    places = np.arange(width)
    replaced[:, places, places] = mean_F
    lost = served.model.scores(replaced.reshape(count * width, width)).reshape(count, width)
    gains_CF: NDArray[np.float32] = served.model.scores(features_CF)[:, None] - lost
    return gains_CF
