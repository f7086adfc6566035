"""All items as columns by ordinal: what the feature store sends and a ranker scores from.

A decayed count is kept as the log of a *forward-decayed* sum (Cormode et al., "Forward Decay", ICDE 2009):
`log Σ exp((t_i − LANDMARK) / τ)`. It changes only when something happens to the item, so nothing has to be
sent while the clock moves; a reader subtracts `(now − LANDMARK) / τ`, or compares two items directly.
"""

# N items, F item features, K neighbours

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headrace.model.events import COUNTED_NAMES
from headrace.model.leaders import Leaders
from headrace.model.servable import Mask, Servable
from headrace.model.words import WORDS

NEIGHBOURS = 32
NO_NEIGHBOUR = 0xFFFFFFFF

LANDMARK_US = 1_577_836_800_000_000  # 2020-01-01
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

WINDOWS_US = {"5m": 300_000_000, "1h": HOUR_US, "1d": DAY_US, "7d": 7 * DAY_US}
HALF_LIVES_DAYS = (1, 7, 30)
DECAYED_NAMES = ("views", "purchases")

# the log of a decayed count of nothing; finite, so that columns stay finite
NEVER = -1e30

_STATE = (
    "described",
    "deleted",
    "available",
    "price",
    "discount",
    "price_change",
    "first_seen_h",
    "publish_h",
    "expire_h",
    "category",
    "brand",
)
# codes of a title's words and their weights (model/words.py)
_WORDS = tuple(f"{name}_{number}" for name in ("word", "word_weight") for number in range(1, WORDS + 1))
WINDOW_FEATURES = tuple(f"{name}_{window}" for window in WINDOWS_US for name in COUNTED_NAMES)
POPULARITY_FEATURES = tuple(f"log_{name}_{days}d" for name in DECAYED_NAMES for days in HALF_LIVES_DAYS)
# repeats: purchases by a person who has the item in the history as bought; customers: persons with an account;
# first purchases: those of customers' first visits that end in a purchase
MARKED_FEATURES = (
    "log_repeats_30d",
    "log_customer_purchases_7d",
    "log_customer_purchases_30d",
    "log_first_purchases_30d",
)
DECAY_FEATURES = POPULARITY_FEATURES + MARKED_FEATURES
ITEM_FEATURES: tuple[str, ...] = _STATE + WINDOW_FEATURES + DECAY_FEATURES + _WORDS

COLUMN = {name: place for place, name in enumerate(ITEM_FEATURES)}
WINDOW_COLUMNS = slice(len(_STATE), len(_STATE) + len(WINDOW_FEATURES))
DECAY_COLUMNS = slice(WINDOW_COLUMNS.stop, WINDOW_COLUMNS.stop + len(DECAY_FEATURES))
WORD_COLUMNS = slice(DECAY_COLUMNS.stop, len(ITEM_FEATURES))
POPULARITY_COLUMNS = slice(WINDOW_COLUMNS.stop, WINDOW_COLUMNS.stop + len(POPULARITY_FEATURES))

# what decides whether an item may be shown; they lie within the first columns
_SHOWN = slice(0, COLUMN["expire_h"] + 1)

# which columns popular items are drawn from, in turn
_POPULAR = tuple(
    COLUMN[name]
    for name in (
        "log_purchases_7d",
        "log_customer_purchases_30d",
        "log_purchases_30d",
        "log_views_1d",
        "log_views_7d",
    )
)
_POPULAR_DECAYS = [column - DECAY_COLUMNS.start for column in _POPULAR]
_FRESH = (COLUMN["first_seen_h"],)


def tau_us(half_life_days: float) -> float:
    """The time in which a decayed count falls to 1/e."""
    return half_life_days * DAY_US / math.log(2)


def hours(time_us: float) -> float:
    """Hours since the landmark: a float32 holds them to half a minute for a century."""
    return (time_us - LANDMARK_US) / HOUR_US


def blank_item() -> NDArray[np.float32]:
    """The columns of an item that nothing is known of."""
    row = np.zeros(len(ITEM_FEATURES), np.float32)
    row[DECAY_COLUMNS] = NEVER
    row[COLUMN["expire_h"]] = 1e9
    row[COLUMN["publish_h"]] = -1e9
    row[COLUMN["available"]] = 1
    return row


@dataclass(frozen=True, slots=True)
class _Popular:
    """Popular items, as long as the leaders, what may be shown and what there is to rank by stay."""

    changes: int
    columns: list[int]
    servable: NDArray[np.bool_]
    ordinals: NDArray[np.uint32]


@dataclass
class Items:
    """Columns of items 0 .. count−1; the arrays have room for more. `version` grows with every change."""

    features_NF: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, len(ITEM_FEATURES)), np.float32))
    neighbour_ordinals_NK: NDArray[np.uint32] = field(default_factory=lambda: np.empty((0, NEIGHBOURS), np.uint32))
    neighbour_weights_NK: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, NEIGHBOURS), np.float32))
    count: int = 0
    version: int = 0
    # the most that any item has of each decayed count, for measures relative to the most popular item
    decay_maxima: NDArray[np.float32] = field(
        default_factory=lambda: np.full(len(DECAY_FEATURES), NEVER, dtype=np.float32)
    )

    # shared with views of the same rows
    _leaders: Leaders = field(default_factory=lambda: Leaders(NEVER), repr=False)
    _servable_kept: Servable = field(default_factory=Servable, repr=False)
    _popular_kept: dict[int, _Popular] = field(default_factory=dict, repr=False)

    def view(self) -> Items:
        """The items as they stand, in shape: they may grow while another thread reads.

        Rows are shared, so a reader may see newer values.
        """
        return replace(self)

    def grow(self, count: int) -> None:
        """Makes items up to `count` exist, blank."""
        if count <= self.count:
            return
        if count > len(self.features_NF):
            self._allocate(max(count, 2 * len(self.features_NF), 1024))
        self.count = count
        self.version += 1

    def _allocate(self, room: int) -> None:
        features = np.tile(blank_item(), (room, 1))
        neighbours = np.full((room, NEIGHBOURS), NO_NEIGHBOUR, np.uint32)
        weights = np.zeros((room, NEIGHBOURS), np.float32)
        features[: self.count] = self.features_NF[: self.count]
        neighbours[: self.count] = self.neighbour_ordinals_NK[: self.count]
        weights[: self.count] = self.neighbour_weights_NK[: self.count]
        self.features_NF, self.neighbour_ordinals_NK, self.neighbour_weights_NK = features, neighbours, weights
        # views of the old rows keep theirs: they hear of no change any more
        self._leaders, self._servable_kept, self._popular_kept = Leaders(NEVER), Servable(), {}

    def update(
        self,
        ordinals: NDArray[np.uint32],
        features: NDArray[np.float32],
        neighbour_ordinals: NDArray[np.uint32],
        neighbour_weights: NDArray[np.float32],
    ) -> None:
        """Replaces the rows of distinct `ordinals`, growing as needed."""
        if not len(ordinals):
            return
        self.grow(int(ordinals.max()) + 1)
        self.set_features(ordinals, features)
        self.set_neighbours(ordinals, neighbour_ordinals, neighbour_weights)

    def set_features(self, ordinals: NDArray[np.uint32], features: NDArray[np.float32]) -> None:
        """Replaces the feature rows of distinct, existing items."""
        before = self.features_NF[ordinals, DECAY_COLUMNS]
        is_described_anew = (self.features_NF[ordinals, _SHOWN] != features[:, _SHOWN]).any()
        self.features_NF[ordinals] = features
        if is_described_anew:
            self.note_described(ordinals)
        self.note_decayed(ordinals, before, features[:, DECAY_COLUMNS])
        self.version += 1

    def note_decayed(
        self, ordinals: NDArray[np.integer], before: NDArray[np.float32], after: NDArray[np.float32]
    ) -> None:
        """Keeps what is known of the greatest counts true after those of items changed from `before` to `after`."""
        self._leaders.note(_POPULAR, ordinals, after[:, _POPULAR_DECAYS])
        if ((before >= self.decay_maxima) & (after < before)).any():
            self.decay_maxima = self.features_NF[: self.count, DECAY_COLUMNS].max(axis=0)
        elif len(after):
            np.maximum(self.decay_maxima, after.max(axis=0), out=self.decay_maxima)

    def set_neighbours(
        self,
        ordinals: NDArray[np.uint32],
        neighbour_ordinals: NDArray[np.uint32],
        neighbour_weights: NDArray[np.float32],
    ) -> None:
        """Replaces the neighbours of distinct, existing items; NO_NEIGHBOUR and 0 where there are fewer."""
        self.neighbour_ordinals_NK[ordinals] = neighbour_ordinals
        self.neighbour_weights_NK[ordinals] = neighbour_weights
        self.version += 1

    def column(self, name: str) -> NDArray[np.float32]:
        """One feature of all items, as a view."""
        return self.features_NF[: self.count, COLUMN[name]]

    def is_servable(self, now_us: int) -> NDArray[np.bool_]:
        """Which items may be shown: described, not deleted, published and not expired. Stock is the caller's.

        Do not write to the answer: it is kept for the next call.
        """
        return self._servable_kept.at(now_us, self.count, lambda: self._servable_now(now_us))

    def _servable_now(self, now_us: int) -> Mask:
        rows = self.features_NF[: self.count]
        turns_h = np.concatenate([rows[:, COLUMN["publish_h"]], rows[:, COLUMN["expire_h"]]])
        now_h = np.float32(hours(now_us))
        past, coming = turns_h[turns_h <= now_h], turns_h[turns_h > now_h]
        begin_us = float(past.max()) * HOUR_US + LANDMARK_US if len(past) else -math.inf
        end_us = float(coming.min()) * HOUR_US + LANDMARK_US if len(coming) else math.inf
        return Mask(begin_us, end_us, self._servable(rows, now_us))

    def note_described(self, ordinals: NDArray[np.integer]) -> None:
        """Says that documents or first sights changed: to be called after writing to those columns in place."""
        self._servable_kept.forget()
        self._leaders.note(_FRESH, ordinals, self.features_NF[ordinals, COLUMN["first_seen_h"], None])
        self.version += 1

    def are_servable(self, ordinals: NDArray[np.uint32], now_us: int) -> NDArray[np.bool_]:
        """The same for some items; unknown ones are not."""
        known = ordinals < self.count
        if self.count == 0:
            return known
        return known & self._servable(self.features_NF[np.where(known, ordinals, 0)], now_us)

    @staticmethod
    def _servable(rows: NDArray[np.float32], now_us: int) -> NDArray[np.bool_]:
        now_h = np.float32(hours(now_us))
        servable: NDArray[np.bool_] = (
            (rows[:, COLUMN["described"]] > 0)
            & (rows[:, COLUMN["deleted"]] == 0)
            & (rows[:, COLUMN["publish_h"]] <= now_h)
            & (rows[:, COLUMN["expire_h"]] > now_h)
        )
        return servable

    def popular(self, now_us: int, limit: int) -> NDArray[np.uint32]:
        """The most bought and most viewed servable items at several half-lives in turn, best first."""
        changes, servable = self._leaders.changes, self.is_servable(now_us)
        # a shop without views, say, has nothing to rank by in half of the columns; and no leaders are followed there
        columns = [column for column in _POPULAR if self.decay_maxima[column - DECAY_COLUMNS.start] > NEVER]
        kept = self._popular_kept.get(limit)
        if kept is None or (kept.changes, kept.columns) != (changes, columns) or kept.servable is not servable:
            lists = [self._first(column, limit, servable) for column in columns]
            kept = self._popular_kept[limit] = _Popular(changes, columns, servable, _interleaved(lists, limit))
        return kept.ordinals

    def fresh(self, now_us: int, limit: int) -> NDArray[np.uint32]:
        """The servable items seen last for the first time, newest first."""
        return self._first(_FRESH[0], limit, self.is_servable(now_us))

    def _first(self, column: int, limit: int, servable: NDArray[np.bool_]) -> NDArray[np.uint32]:
        return self._leaders.first(column, self.features_NF[: self.count, column], servable, limit)


def _interleaved(lists: list[NDArray[np.uint32]], limit: int) -> NDArray[np.uint32]:
    if not lists:
        return np.empty(0, np.uint32)
    ranks = np.concatenate([np.arange(len(part)) for part in lists])
    merged = np.concatenate(lists)[np.argsort(ranks, kind="stable")]
    _, first = np.unique(merged, return_index=True)
    first.sort()
    return merged[first[:limit]]
