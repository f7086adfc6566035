"""Which items are worth scoring for a person, and the features that they are scored by.

Both are pure functions of a history, the item columns and a time, used by the ranker for an answer and by
the feature store for training rows, so that what is served is what was learned.
"""

# C candidates, F candidate features, L history length, D distinct recent items, K neighbours

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.events import EventCode
from headrace.model.history import History, recent_distinct, visit_numbers
from headrace.model.items import (
    COLUMN,
    DECAY_COLUMNS,
    HOUR_US,
    ITEM_FEATURES,
    MARKED_FEATURES,
    NEVER,
    NO_NEIGHBOUR,
    POPULARITY_FEATURES,
    WINDOW_COLUMNS,
    WINDOW_FEATURES,
    WORD_COLUMNS,
    Items,
    hours,
)
from headrace.model.words import WORDS, title_likeness

FEATURE_VERSION = 3

REPURCHASE, COVISITATION, POPULAR, FRESH, VECTOR, LEXICAL = 1, 2, 4, 8, 16, 32
SOURCE_NAMES = {
    REPURCHASE: "repurchase",
    COVISITATION: "co-visitation",
    POPULAR: "popular",
    FRESH: "fresh",
    VECTOR: "vector",
    LEXICAL: "lexical",
}

# the last distinct items whose neighbours count, and how much less each older one does
RECENT_ITEMS = 20
_POSITION_DECAY = 0.95
# how much older baskets weigh in the decayed personal frequency
_BASKET_DECAY = 0.85
_REPURCHASE_DECAY = 0.98

_OWN = (
    "own_views",
    "own_carts",
    "own_removes",
    "own_purchases",
    "own_basket_share",
    "own_basket_share_decayed",
    "own_in_last_basket",
    "own_recency",
    "own_age",
    "own_age_in_basket_gaps",
    "own_age_in_item_gaps",
)
_COVISITED = ("covisitation", "covisitation_best", "covisitation_last_visit", "covisitation_lift")
_MARKED = tuple(f"relative_{name}" for name in MARKED_FEATURES[1:])
_POPULARITY = (
    *(f"relative_{name}" for name in POPULARITY_FEATURES),
    *_MARKED,
    "trend_views",
    "trend_purchases",
    "repeat_rate",
)
_ITEM = ("price", "price_to_own", "discount", "price_change", "age", "available")
_AFFINITY = (
    "category_share",
    "brand_share",
    "history_length",
    "basket_count",
    "basket_size",
    "own_repeat_share",
    "hours_since_last",
)
_ALIKE = ("words_last_visit", "words_recent")
_WHO = ("is_customer",)
RETRIEVAL_FEATURES = ("vector_score", "vector_rank", "lexical_score")

CANDIDATE_FEATURES: tuple[str, ...] = (
    _OWN + _COVISITED + _POPULARITY + WINDOW_FEATURES + _ITEM + _AFFINITY + _ALIKE + _WHO + RETRIEVAL_FEATURES
)
FEATURE_SCHEMA: str = hashlib.sha256(
    "\n".join([str(FEATURE_VERSION), *ITEM_FEATURES, "", *CANDIDATE_FEATURES]).encode()
).hexdigest()

_OWN_COLUMNS = np.array([COLUMN["category"], COLUMN["brand"], COLUMN["price"]])
_AT = {name: place for place, name in enumerate(CANDIDATE_FEATURES)}


def _span(names: tuple[str, ...]) -> slice:
    return slice(_AT[names[0]], _AT[names[-1]] + 1)


_OWN_AT, _COVISITED_AT, _POPULARITY_AT = _span(_OWN), _span(_COVISITED), _span(_POPULARITY)
_MARKED_AT = _span(_MARKED)
_WINDOWS_AT, _ITEM_AT, _AFFINITY_AT = _span(WINDOW_FEATURES), _span(_ITEM), _span(_AFFINITY)
_ALIKE_AT = _span(_ALIKE)


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """At most how many candidates each source may propose."""

    repurchase: int = 120
    covisitation: int = 150
    popular: int = 150
    fresh: int = 20


@dataclass(frozen=True, slots=True)
class Proposals:
    """Distinct candidates with the sources that proposed each, as a bit mask."""

    ordinals: NDArray[np.uint32]  # C
    sources: NDArray[np.uint8]  # C


@dataclass(frozen=True, slots=True)
class Person:
    """What the features need of a person, taken once: the history, and what is known of its items."""

    history: History
    recent_D: NDArray[np.uint32]  # the last distinct items, newest first
    neighbour_ordinals_DK: NDArray[np.uint32]
    neighbour_weights_DK: NDArray[np.float32]
    own_L3: NDArray[np.float32]  # category, brand and price of the history's items
    decay_maxima: NDArray[np.float32]
    recent_words_DW: NDArray[np.float32]  # codes, then weights

    @classmethod
    def of(cls, history: History, items: Items) -> Person:
        recent = _known(recent_distinct(history.ordinals, RECENT_ITEMS), items)
        own = _known(history.ordinals, items)
        return cls(
            history,
            recent,
            items.neighbour_ordinals_NK[recent],
            items.neighbour_weights_NK[recent],
            items.features_NF[own[:, None], _OWN_COLUMNS],
            items.decay_maxima.copy(),
            items.features_NF[recent, WORD_COLUMNS],
        )

    def in_last_visit(self) -> NDArray[np.bool_]:
        """Which of the recent items belong to the last visit."""
        visits = visit_numbers(self.history.times_us)
        of_visit: NDArray[np.uint32] = self.history.ordinals[visits == visits[-1]]
        # a table is quicker than np.isin for so few
        is_in_D: NDArray[np.bool_] = (self.recent_D[:, None] == of_visit).any(axis=1)
        return is_in_D


def propose(history: History, items: Items, now_us: int, limits: SourceLimits) -> Proposals:
    """Candidates for a person: bought or seen before, seen along with the last items, popular, new.

    Best first within a source, sources in that order; only servable items.
    """
    return propose_for(Person.of(history, items), items, now_us, limits)


def propose_for(person: Person, items: Items, now_us: int, limits: SourceLimits) -> Proposals:
    """`propose` for a person that is at hand."""
    parts = (
        (REPURCHASE, _repurchase(person.history, limits.repurchase)),
        (COVISITATION, _covisited(person, limits.covisitation)),
        (POPULAR, items.popular(now_us, limits.popular)),
        (FRESH, items.fresh(now_us, limits.fresh)),
    )
    return _merged(parts, items, now_us)


def _merged(parts: tuple[tuple[int, NDArray[np.uint32]], ...], items: Items, now_us: int) -> Proposals:
    ordinals = np.concatenate([part for _, part in parts])
    bits = np.repeat(np.array([bit for bit, _ in parts], np.uint8), [len(part) for _, part in parts])
    distinct, first, inverse = np.unique(ordinals, return_index=True, return_inverse=True)
    sources = np.zeros(len(distinct), np.uint8)
    np.bitwise_or.at(sources, inverse, bits)
    order = np.argsort(first)
    order = order[items.are_servable(distinct[order], now_us)]
    return Proposals(distinct[order], sources[order])


def _repurchase(history: History, limit: int) -> NDArray[np.uint32]:
    kept = history.event_types != EventCode.REMOVE
    ordinals = history.ordinals[kept]
    weights = _REPURCHASE_DECAY ** np.arange(len(ordinals) - 1, -1, -1)
    return _heaviest(ordinals, weights, limit)


def _covisited(person: Person, limit: int) -> NDArray[np.uint32]:
    weights_DK = person.neighbour_weights_DK * _position_weights(len(person.recent_D))[:, None]
    ordinals = person.neighbour_ordinals_DK.ravel()
    kept = ordinals != NO_NEIGHBOUR
    return _heaviest(ordinals[kept], weights_DK.ravel()[kept], limit)


def _known(ordinals: NDArray[np.uint32], items: Items) -> NDArray[np.uint32]:
    return ordinals[ordinals < items.count]


def _position_weights(count: int) -> NDArray[np.float32]:
    return (_POSITION_DECAY ** np.arange(count)).astype(np.float32)


def _heaviest(ordinals: NDArray[np.uint32], weights: NDArray[np.floating], limit: int) -> NDArray[np.uint32]:
    distinct, inverse = np.unique(ordinals, return_inverse=True)
    sums = np.bincount(inverse, weights, len(distinct))
    return distinct[np.argsort(-sums, kind="stable")[:limit]]


def candidate_features(
    history: History, items: Items, candidates: NDArray[np.uint32], now_us: int
) -> NDArray[np.float32]:
    """C × F features of distinct candidates for a person; finite, about unit scale, zeros for unknown items.

    The last three (RETRIEVAL_FEATURES) stay 0: see `fill_vector_features`.
    """
    known = candidates < items.count
    ordinals = candidates if known.all() else candidates[known]
    features = features_for(Person.of(history, items), ordinals, items.features_NF[ordinals], now_us)
    if len(ordinals) == len(candidates):
        return features
    features_CF = np.zeros((len(candidates), len(CANDIDATE_FEATURES)), np.float32)
    features_CF[known] = features
    return features_CF


def features_for(
    person: Person, candidates: NDArray[np.uint32], rows: NDArray[np.float32], now_us: int
) -> NDArray[np.float32]:
    """`candidate_features` of distinct candidates whose item columns `rows` are at hand."""
    features = np.zeros((len(candidates), len(CANDIDATE_FEATURES)), np.float32)
    if not len(candidates):
        return features
    _fill_popularity(features, rows, person.decay_maxima)
    _fill_item(features, rows, now_us)
    features[:, _AT["is_customer"]] = person.history.is_customer
    if len(person.history):
        lookup = _Lookup(candidates)
        _fill_own(features, person.history, lookup, now_us)
        _fill_covisited(features, person, lookup)
        _fill_affinity(features, rows, person, now_us)
        _fill_alike(features, rows[:, WORD_COLUMNS], person)
    return features


def fill_vector_features(features_CF: NDArray[np.float32], scores_C: NDArray[np.float32]) -> None:
    """Writes `vector_score` and `vector_rank` in place from one inner product a candidate."""
    ranks = np.empty(len(scores_C), np.float32)
    ranks[np.argsort(-scores_C, kind="stable")] = np.arange(len(scores_C), dtype=np.float32)
    features_CF[:, _AT["vector_score"]] = scores_C
    features_CF[:, _AT["vector_rank"]] = 1.0 / (1.0 + ranks / 10.0)


class _Lookup:
    """Finds the places of ordinals among the candidates."""

    def __init__(self, candidates: NDArray[np.uint32]) -> None:
        self.count = len(candidates)
        self._order = np.argsort(candidates)
        self._sorted = candidates[self._order]

    def places(self, ordinals: NDArray[np.uint32]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        """Which of `ordinals` are candidates, and the places of those that are."""
        at = np.minimum(np.searchsorted(self._sorted, ordinals), self.count - 1)
        found = self._sorted[at] == ordinals
        return found, self._order[at[found]]


def _fill_popularity(features: NDArray[np.float32], rows: NDArray[np.float32], maxima: NDArray[np.float32]) -> None:
    relative = np.maximum(rows[:, DECAY_COLUMNS] - maxima, -12.0) / 4.0
    # where no item has any, all are equal: 0
    relative[:, maxima <= -1e29] = 0.0
    features[:, _POPULARITY_AT][:, : len(POPULARITY_FEATURES)] = relative[:, : len(POPULARITY_FEATURES)]
    features[:, _MARKED_AT] = relative[:, len(POPULARITY_FEATURES) + 1 :]
    features[:, _AT["trend_views"]] = relative[:, 0] - relative[:, 2]
    features[:, _AT["trend_purchases"]] = relative[:, 3] - relative[:, 5]
    # of what is bought, how much is bought again by the same person
    repeats = rows[:, COLUMN["log_repeats_30d"]] - rows[:, COLUMN["log_purchases_30d"]]
    has_repeats = rows[:, COLUMN["log_repeats_30d"]] > NEVER / 2
    features[:, _AT["repeat_rate"]] = np.where(has_repeats, np.exp(np.clip(repeats, -20.0, 0.0)), 0.0)
    features[:, _WINDOWS_AT] = np.log1p(np.maximum(rows[:, WINDOW_COLUMNS], 0.0)) / 3.0


def _fill_item(features: NDArray[np.float32], rows: NDArray[np.float32], now_us: int) -> None:
    age_h = np.maximum(np.float32(hours(now_us)) - rows[:, COLUMN["first_seen_h"]], 0.0)
    features[:, _AT["price"]] = np.log1p(rows[:, COLUMN["price"]]) / 3.0
    features[:, _AT["discount"]] = rows[:, COLUMN["discount"]]
    features[:, _AT["price_change"]] = rows[:, COLUMN["price_change"]]
    features[:, _AT["age"]] = np.log1p(age_h) / 8.0
    features[:, _AT["available"]] = rows[:, COLUMN["available"]]


def _fill_own(features: NDArray[np.float32], history: History, lookup: _Lookup, now_us: int) -> None:
    found, places = lookup.places(history.ordinals)
    if not len(places):
        return
    kinds = history.event_types[found]
    counts = np.bincount(places * 5 + np.minimum(kinds, 4), minlength=lookup.count * 5).reshape(-1, 5)
    features[:, _OWN_AT][:, :4] = np.log1p(counts[:, 1:])
    _fill_recency(features, history, found, places, now_us)
    _fill_baskets(features, history, found, places, now_us)


def _fill_recency(
    features: NDArray[np.float32],
    history: History,
    found: NDArray[np.bool_],
    places: NDArray[np.intp],
    now_us: int,
) -> None:
    # with repeated places the last one wins: the newest event
    back = np.arange(len(history) - 1, -1, -1, dtype=np.float32)[found]
    features[places, _AT["own_recency"]] = 1.0 / (1.0 + back / 10.0)
    ages_h = np.maximum(now_us - history.times_us[found], 0) / HOUR_US
    features[places, _AT["own_age"]] = np.log1p(ages_h) / 8.0


def _fill_baskets(
    features: NDArray[np.float32],
    history: History,
    found: NDArray[np.bool_],
    places: NDArray[np.intp],
    now_us: int,
) -> None:
    bought = history.event_types == EventCode.PURCHASE
    if not bought.any():
        return
    times = history.times_us[bought]
    baskets = visit_numbers(times)
    total = int(baskets[-1]) + 1
    is_candidate = found[bought]
    pairs = np.unique(places[bought[found]] * total + baskets[is_candidate])
    owners, numbers = pairs // total, pairs % total
    held = np.bincount(owners, minlength=len(features))
    weights = _BASKET_DECAY ** np.arange(total - 1, -1, -1)
    features[:, _AT["own_basket_share"]] = held / total
    features[:, _AT["own_basket_share_decayed"]] = (
        np.bincount(owners, weights[numbers], minlength=len(features)) / weights.sum()
    )
    features[owners[numbers == total - 1], _AT["own_in_last_basket"]] = 1.0
    starts = times[np.searchsorted(baskets, np.arange(total))]
    _fill_gaps(features, starts, owners, numbers, held, now_us)


def _fill_gaps(
    features: NDArray[np.float32],
    starts_us: NDArray[np.int64],
    owners: NDArray[np.intp],
    numbers: NDArray[np.intp],
    held: NDArray[np.intp],
    now_us: int,
) -> None:
    last_h = np.zeros(len(features))
    first_h = np.zeros(len(features))
    starts_h = starts_us / HOUR_US
    last_h[owners] = starts_h[numbers]
    first_h[owners[::-1]] = starts_h[numbers[::-1]]
    age_h = np.maximum(now_us / HOUR_US - last_h, 0.0) + 1.0
    if len(starts_us) > 1:
        # late events may make a visit begin before the one ahead of it
        gap_h = max(float(np.median(starts_h[1:] - starts_h[:-1])), 0.0) + 1.0
        relative = np.clip(np.log(age_h / gap_h) / 3.0, -2.0, 2.0)
        features[:, _AT["own_age_in_basket_gaps"]] = np.where(held > 0, relative, 0.0)
    own_gap_h = np.maximum((last_h - first_h) / np.maximum(held - 1, 1), 0.0) + 1.0
    relative = np.clip(np.log(age_h / own_gap_h) / 3.0, -2.0, 2.0)
    features[:, _AT["own_age_in_item_gaps"]] = np.where(held > 1, relative, 0.0)


def _fill_covisited(features: NDArray[np.float32], person: Person, lookup: _Lookup) -> None:
    found, places = lookup.places(person.neighbour_ordinals_DK.ravel())
    if not len(places):
        return
    recent, weights_DK = person.recent_D, person.neighbour_weights_DK
    decayed = (weights_DK * _position_weights(len(recent))[:, None]).ravel()[found]
    total = np.bincount(places, decayed, lookup.count)
    best = np.zeros(lookup.count)
    np.maximum.at(best, places, weights_DK.ravel()[found])
    in_visit = np.repeat(person.in_last_visit(), weights_DK.shape[1])[found]
    of_visit = np.bincount(places[in_visit], decayed[in_visit], lookup.count)
    features[:, _AT["covisitation"]] = np.log1p(20.0 * total) / 2.0
    features[:, _AT["covisitation_best"]] = np.log1p(20.0 * best)
    features[:, _AT["covisitation_last_visit"]] = np.log1p(20.0 * of_visit) / 2.0
    popularity = features[:, _AT["relative_log_purchases_30d"]] + features[:, _AT["relative_log_views_30d"]]
    features[:, _AT["covisitation_lift"]] = np.where(total > 0, np.log(total + 1e-4) / 4.0 - popularity, 0.0)


def _fill_affinity(features: NDArray[np.float32], rows: NDArray[np.float32], person: Person, now_us: int) -> None:
    history, own = person.history, person.own_L3
    features[:, _AT["category_share"]] = _share(own[:, 0], rows[:, COLUMN["category"]])
    features[:, _AT["brand_share"]] = _share(own[:, 1], rows[:, COLUMN["brand"]])
    prices = own[:, 2]
    if (prices > 0).any():
        median = np.median(prices[prices > 0])
        price = rows[:, COLUMN["price"]]
        relative = np.clip(np.log(np.maximum(price, 1e-6) / median), -3.0, 3.0)
        features[:, _AT["price_to_own"]] = np.where(price > 0, relative, 0.0)
    bought = history.event_types == EventCode.PURCHASE
    baskets = visit_numbers(history.times_us[bought])
    features[:, _AT["history_length"]] = np.log1p(len(history)) / 5.0
    count = int(baskets[-1]) + 1 if len(baskets) else 0
    features[:, _AT["basket_count"]] = np.log1p(count) / 3.0
    features[:, _AT["basket_size"]] = np.log1p(len(baskets) / max(count, 1)) / 3.0
    distinct = len(np.unique(history.ordinals[bought]))
    features[:, _AT["own_repeat_share"]] = 1.0 - distinct / max(len(baskets), 1) if count else 0.0
    features[:, _AT["hours_since_last"]] = np.log1p(max(now_us - int(history.times_us.max()), 0) / HOUR_US) / 8.0


def _fill_alike(features: NDArray[np.float32], words_CW: NDArray[np.float32], person: Person) -> None:
    own_DW = person.recent_words_DW
    if not len(own_DW):
        return
    in_visit = person.in_last_visit().astype(np.float64)
    # all of the last visit may be unknown items
    shares_SD = np.stack([in_visit / max(in_visit.sum(), 1.0), _position_weights(len(own_DW))])
    shares_SD[1] /= shares_SD[1].sum()
    (codes_DW, weights_DW), (codes_CW, weights_CW) = (np.split(words, [WORDS], axis=1) for words in (own_DW, words_CW))
    alike_SC = title_likeness(codes_DW.astype(np.int64), weights_DW, shares_SD, codes_CW.astype(np.int64), weights_CW)
    # cosines to many titles are small
    features[:, _ALIKE_AT] = 3.0 * alike_SC.T


def _share(own: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the person's events, the share that has the candidate's code; code 0 means none."""
    if not own.any():
        return np.zeros(len(wanted), np.float32)
    counts = np.bincount(own.astype(np.int64), minlength=2)
    counts[0] = 0
    # a code that the person never met counts as none
    codes = wanted.astype(np.int64)
    share: NDArray[np.float32] = (counts[np.where(codes < len(counts), codes, 0)] / len(own)).astype(np.float32)
    return share
