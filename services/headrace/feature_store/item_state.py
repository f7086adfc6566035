"""What is counted and said of items, their categories and their brands.

The windows of people are kept beside theirs: a row counts one entity, whatever it is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.catalogue import Catalogue, describe
from headrace.feature_store.columns import Columns
from headrace.feature_store.decay import DecayedCounts
from headrace.feature_store.entities import Entities
from headrace.feature_store.facts import ProductFact, UserAct
from headrace.feature_store.visits import Visit
from headrace.feature_store.windows import WIDTH, WindowedCounts
from headrace.feature_store.word_counts import WordCounts
from headrace.model.covisitation import Covisitation, moments_back
from headrace.model.events import COUNTED_CODES, EventCode
from headrace.model.items import COLUMN, DECAY_COLUMNS, WINDOW_COLUMNS, WORD_COLUMNS, Items, hours

# codes that are counted, and where in the counts
KIND = {code: kind for kind, code in enumerate(COUNTED_CODES)}
_FIRST_SEEN = COLUMN["first_seen_h"]
_PURCHASE = EventCode.PURCHASE


class ItemState:
    """Columns of items, and all that they are made from.

    `changed_items` and `changed_documents` gather ordinals until `taken_changes`; they are no part of the state.
    """

    def __init__(self, covisitation_half_life_days: float) -> None:
        self.items = Items()
        self.windows = WindowedCounts()
        self.entities = Entities()
        self.catalogue = Catalogue()
        self._words = WordCounts()
        self._decays = DecayedCounts()
        self._covisitation = Covisitation(covisitation_half_life_days)
        self._seen: list[bool] = []
        self.changed_items: list[NDArray[np.int64]] = []
        self.changed_documents: set[int] = set()

    def advance(self, time_us: int) -> None:
        """Takes out what has left its window."""
        expired = self.windows.advance(time_us)
        if not len(expired):
            return
        expired = np.unique(expired)
        self.entities.free_idle(expired, self.windows.totals_RW)
        rows, ordinals = self.entities.items_of(expired)
        self.items.features_NF[ordinals, WINDOW_COLUMNS] = self.windows.totals_RW[rows]
        self.changed_items.append(ordinals)

    def see(self, ordinals: list[int], time_us: int) -> None:
        """Makes items exist, with the time of their first sight."""
        highest = max(ordinals)
        if highest >= self.items.count:
            self.items.grow(highest + 1)
            self._decays.grow(highest + 1)
            self._covisitation.grow(highest + 1)
            self.entities.grow_items(highest + 1)
            self._seen += [False] * (highest + 1 - len(self._seen))
        for ordinal in ordinals:
            if not self._seen[ordinal]:
                self._seen[ordinal] = True
                self.items.features_NF[ordinal, _FIRST_SEEN] = hours(time_us)
                self.items.note_described(np.array([ordinal]))

    def pair(self, visit: Visit, act: UserAct) -> None:
        """Counts what is new in a visit as going together with what it held before."""
        changed = np.array(act.ordinals)
        if new := visit.new_among(act.ordinals):
            moments = moments_back(visit.recent_us, act.time_us)
            changed = self._covisitation.add(visit.recent, moments, new, act.time_us)
        visit.touch(act.ordinals, act.time_us)
        self.changed_items.append(changed)

    def count(
        self, act: UserAct, user_key: str | None, marks: Iterable[tuple[str, NDArray[np.int64]]], now_us: int
    ) -> None:
        """Counts an act for its items, categories and brands, and for a person; `marks`: what items count as too."""
        rows = self.entities.rows_of(user_key, act.ordinals)
        ordinals = np.array(act.ordinals)
        self.windows.add(rows, KIND[act.code], act.time_us, now_us)
        self._decays.add(ordinals, act.code, act.time_us)
        for name, marked in marks:
            self._decays.add_marked(name, marked, act.time_us)
        self._refresh(ordinals, rows[: len(ordinals)])

    def take_back(self, ordinal: int, time_us: int, now_us: int) -> None:
        """Takes the counts of a purchase of the item back."""
        rows = self.entities.item_row(ordinal)
        self.windows.add(rows, KIND[_PURCHASE], time_us, now_us, sign=-1)
        self._decays.take_back(ordinal, _PURCHASE, time_us)
        self._refresh(np.array([ordinal]), rows)
        self.changed_items.append(np.array([ordinal]))

    def _refresh(self, ordinals: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Copies the counts of items into their columns."""
        features = self.items.features_NF
        before = features[ordinals, DECAY_COLUMNS]
        features[ordinals, WINDOW_COLUMNS] = self.windows.totals_RW[rows]
        features[ordinals, DECAY_COLUMNS] = self._decays.logs_NH[ordinals]
        self.items.note_decayed(ordinals, before, features[ordinals, DECAY_COLUMNS])

    def describe(self, fact: ProductFact, now_us: int) -> None:
        """Takes in what a product's document says."""
        self.see([fact.ordinal], _first_sale_us(fact, now_us))
        category = self.entities.categories.of(fact.category)
        brand = self.entities.brands.of(fact.brand)
        row = self.items.features_NF[fact.ordinal]
        describe(row, fact, category, brand)
        self.items.note_described(np.array([fact.ordinal]))
        if not fact.deleted:
            row[WORD_COLUMNS] = self._words.read(fact.title, row[WORD_COLUMNS])
            self.entities.category_of[fact.ordinal] = category
            self.entities.brand_of[fact.ordinal] = brand
        self.catalogue.put(fact)
        self.changed_documents.add(fact.ordinal)
        self.changed_items.append(np.array([fact.ordinal]))

    def freshen(self, ordinals: NDArray[np.int64]) -> None:
        """Brings the neighbours of existing items up to date."""
        stale = ordinals[self._covisitation.stale_N[ordinals]]
        if len(stale):
            self.items.set_neighbours(stale.astype(np.uint32), *self._covisitation.neighbours(stale))
            self._covisitation.stale_N[stale] = False

    def group_counts(self, kind: str, ordinals: list[int]) -> NDArray[np.int32]:
        """Windowed counts of the categories ("category") or brands of items; zeros where an item has none."""
        known = self.entities.group_rows(kind, ordinals)
        counts = np.zeros((len(ordinals), WIDTH), np.int32)
        counts[known >= 0] = self.windows.totals_RW[known[known >= 0]]
        return counts

    def taken_changes(self) -> tuple[list[int], list[int]]:
        """Ordinals of the items and documents that changed since the last call."""
        items, documents = self.changed_items, self.changed_documents
        self.changed_items, self.changed_documents = [], set()
        return (np.unique(np.concatenate(items)).tolist() if items else []), sorted(documents)

    def columns(self) -> Columns:
        """Everything that the next fact's effect depends on."""
        count = self.items.count
        return {
            **self.windows.columns(self.entities.row_count),
            **self.entities.columns(),
            **self.catalogue.columns(),
            **self._words.columns(),
            **self._decays.columns(count),
            **self._covisitation.columns(count),
            "items.features": self.items.features_NF[:count].copy(),
            "items.seen": np.array(self._seen, np.bool_),
        }

    def restore(self, columns: Columns) -> None:
        for part in (self.windows, self.entities, self.catalogue, self._words):
            part.restore(columns)
        for counted in (self._decays, self._covisitation):
            counted.restore(columns)
        features = columns["items.features"].astype(np.float32)
        self._seen = columns["items.seen"].tolist()
        self.items.grow(len(features))
        self.items.set_features(np.arange(len(features), dtype=np.uint32), features)


def _first_sale_us(fact: ProductFact, now_us: int) -> int:
    if fact.publish_us is not None:
        return fact.publish_us
    return now_us or fact.time_us
