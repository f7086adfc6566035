"""The whole state as a pure fold of log records: the same facts and rules give the same state, bit for bit.

Time is the newest event time folded so far. A cancellation takes the counts of the person's newest purchase of each
named item back (its windows and decays, not its repeats), and marks that event of the history as removed. A purchase
that has left the history keeps its counts. Windows of users, categories and brands count what was done, and it was
done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.catalogue import Catalogue, describe
from headrace.feature_store.columns import Columns
from headrace.feature_store.decay import DecayedCounts
from headrace.feature_store.entities import Entities
from headrace.feature_store.facts import Fact, ProductFact, Tick, UserAct
from headrace.feature_store.histories import Histories, history_of
from headrace.feature_store.rules import Rules
from headrace.feature_store.training_rows import ClosedGroup, OpenGroup, is_sampled, open_group
from headrace.feature_store.view_counts import ViewCounts
from headrace.feature_store.visits import Visit, Visits
from headrace.feature_store.windowed_view import WindowedView
from headrace.feature_store.windows import WIDTH, WindowedCounts
from headrace.feature_store.word_counts import WordCounts
from headrace.model.candidates import RECENT_ITEMS
from headrace.model.covisitation import Covisitation, moments_back
from headrace.model.events import COUNTED_CODES, EventCode
from headrace.model.history import is_customer, recent_distinct
from headrace.model.items import COLUMN, DECAY_COLUMNS, WINDOW_COLUMNS, WORD_COLUMNS, Items, hours

_KIND = {code: kind for kind, code in enumerate(COUNTED_CODES)}
_FIRST_SEEN = COLUMN["first_seen_h"]
_PURCHASE = EventCode.PURCHASE


@dataclass(frozen=True, slots=True)
class StateCopy:
    """The state at one offset, safe to write while the fold goes on."""

    offset: int
    fingerprint: str
    columns: Columns
    facts: str

    def digest(self) -> str:
        """SHA-256 over every count, history and document."""
        digest = hashlib.sha256(self.facts.encode())
        for name in sorted(self.columns):
            values = self.columns[name]
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


class State:
    """What is true after every fact so far.

    `changed_items` and `changed_documents` gather ordinals until somebody takes them; they are no part of the state.
    """

    def __init__(self, rules: Rules | None = None, views: Iterable[WindowedView] = ()) -> None:
        self.rules = rules or Rules()
        self.offset = 0
        self.now_us = 0
        self.events_by_type: dict[str, int] = {}
        self.items = Items()
        self.histories = Histories(self.rules.history_events)
        self.windows = WindowedCounts()
        self.entities = Entities()
        self.catalogue = Catalogue()
        self._words = WordCounts()
        self._decays = DecayedCounts()
        self._covisitation = Covisitation(self.rules.covisitation_half_life_days)
        self._visits = Visits()
        self._seen: list[bool] = []
        # declared views by name
        self.views = {view.name: ViewCounts(view) for view in views}
        self.changed_items: list[NDArray[np.int64]] = []
        self.changed_documents: set[int] = set()

    def apply(self, fact: Fact) -> list[ClosedGroup]:
        """Folds one fact; returns the training groups that it closed."""
        closed: list[ClosedGroup] = []
        if isinstance(fact, UserAct):
            closed = self._advance(fact.time_us, fact.offset)
            self._act(fact)
        elif isinstance(fact, ProductFact):
            # a change carries the door's clock, which in a replay is years ahead of the shop's
            self._describe(fact)
        for view in self.views.values():
            view.apply(fact)
        self.offset = fact.offset
        return closed

    def join(self, counts: ViewCounts) -> None:
        """Takes in a view that was folded beside this state, up to the same offset; from now on it is folded here."""
        if counts.offset != self.offset:
            raise ValueError(f"{counts.view.key} is folded up to {counts.offset}, the state up to {self.offset}")
        self.views[counts.view.name] = counts

    def _advance(self, time_us: int, offset: int) -> list[ClosedGroup]:
        if time_us <= self.now_us:
            return []
        self.now_us = time_us
        closed = list(self._visits.end(time_us, offset))
        expired = self.windows.advance(time_us)
        if len(expired):
            rows, ordinals = self.entities.items_of(expired)
            self.items.features_NF[ordinals, WINDOW_COLUMNS] = self.windows.totals_RW[rows]
            self.changed_items.append(ordinals)
        return closed

    def _act(self, act: UserAct) -> None:
        self.events_by_type[act.event_type] = self.events_by_type.get(act.event_type, 0) + 1
        if not act.ordinals:
            return
        self._see(act.ordinals, act.time_us)
        user = self.histories.number(act.user_key)
        if act.is_cancel:
            self._cancel(act, user)
            return
        if act.code in _KIND:
            self._count(act, user)
        self.histories.append(user, np.array(act.ordinals), act.code, act.time_us, act.channel)

    def _see(self, ordinals: list[int], time_us: int) -> None:
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

    def _count(self, act: UserAct, user: int) -> None:
        visit = self._visit(act, user)
        if visit.group is not None:
            visit.group.label(act.ordinals, act.code, self.items)
        self._pair(visit, act)
        rows = self.entities.rows_of(user, act.ordinals)
        ordinals = np.array(act.ordinals)
        self.windows.add(rows, _KIND[act.code], act.time_us, self.now_us)
        self._decays.add(ordinals, act.code, act.time_us)
        if act.code == _PURCHASE:
            self._mark(visit, user, ordinals, act.time_us)
        self._refresh(ordinals, rows[: len(ordinals)])

    def _pair(self, visit: Visit, act: UserAct) -> None:
        """Counts what is new in a visit as going together with what it held before."""
        changed = np.array(act.ordinals)
        if new := visit.new_among(act.ordinals):
            moments = moments_back(visit.recent_us, act.time_us)
            changed = self._covisitation.add(visit.recent, moments, new, act.time_us)
        visit.touch(act.ordinals, act.time_us)
        self.changed_items.append(changed)

    def _mark(self, visit: Visit, user: int, ordinals: NDArray[np.int64], time_us: int) -> None:
        """Counts a purchase by who made it."""
        again = ordinals[self.histories.has_bought(user, ordinals)]
        self._decays.add_marked("log_repeats_30d", again, time_us)
        if not is_customer(visit.user_key):
            return
        for name in ("log_customer_purchases_7d", "log_customer_purchases_30d"):
            self._decays.add_marked(name, ordinals, time_us)
        if visit.is_first:
            self._decays.add_marked("log_first_purchases_30d", ordinals, time_us)

    def _visit(self, act: UserAct, user: int) -> Visit:
        visit = self._visits.of(user)
        if visit is None:
            group = self._group(act.user_key, user)
            visit = Visit(act.user_key, self.now_us, [], [], group, not self.histories.has_bought_any(user))
            self._visits.begin(user, visit)
        self._visits.touch(user, self.now_us)
        return visit

    def _group(self, user_key: str, user: int) -> OpenGroup | None:
        if not is_sampled(user_key, self.now_us, self.rules.row_sample_rate):
            return None
        history = self.histories.bytes_of(user)
        recent = recent_distinct(history_of(history).ordinals, RECENT_ITEMS)
        self.freshen_items(recent.astype(np.int64))
        return open_group(user_key, history, self.items, self.now_us, self.rules.row_candidates)

    def freshen_items(self, ordinals: NDArray[np.int64]) -> None:
        """Brings the neighbours of existing items up to date."""
        stale = ordinals[self._covisitation.stale_N[ordinals]]
        if len(stale):
            self.items.set_neighbours(stale.astype(np.uint32), *self._covisitation.neighbours(stale))
            self._covisitation.stale_N[stale] = False

    def _refresh(self, ordinals: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Copies the counts of items into their columns."""
        features = self.items.features_NF
        before = features[ordinals, DECAY_COLUMNS]
        features[ordinals, WINDOW_COLUMNS] = self.windows.totals_RW[rows]
        features[ordinals, DECAY_COLUMNS] = self._decays.logs_NH[ordinals]
        self.items.note_decayed(ordinals, before, features[ordinals, DECAY_COLUMNS])

    def _cancel(self, act: UserAct, user: int) -> None:
        for ordinal, time_us in self.histories.take_back(user, np.array(act.ordinals), act.time_us):
            rows = self.entities.rows_of(user, [ordinal])[:1]
            self.windows.add(rows, _KIND[_PURCHASE], time_us, self.now_us, sign=-1)
            self._decays.take_back(ordinal, _PURCHASE, time_us)
            self._refresh(np.array([ordinal]), rows)
            self.changed_items.append(np.array([ordinal]))

    def _describe(self, fact: ProductFact) -> None:
        self._see([fact.ordinal], self._first_sale_us(fact))
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

    def _first_sale_us(self, fact: ProductFact) -> int:
        if fact.publish_us is not None:
            return fact.publish_us
        return self.now_us or fact.time_us

    def user_counts(self, user_key: str) -> NDArray[np.int32]:
        """The person's windowed counts; zeros for one never seen."""
        user = self.histories.known_number(user_key)
        row = None if user is None else self.entities.known_row("user", user)
        return np.zeros(WIDTH, np.int32) if row is None else self.windows.of(row)

    def group_counts(self, kind: str, ordinals: list[int]) -> NDArray[np.int32]:
        """Windowed counts of the categories ("category") or brands of items; zeros where an item has none."""
        known = self.entities.group_rows(kind, ordinals)
        counts = np.zeros((len(ordinals), WIDTH), np.int32)
        counts[known >= 0] = self.windows.totals_RW[known[known >= 0]]
        return counts

    def copy(self) -> StateCopy:
        """Everything that the next fact's effect depends on."""
        count = self.items.count
        columns = {
            **self.histories.columns(),
            **self.windows.columns(self.entities.row_count),
            **self.entities.columns(),
            **self.catalogue.columns(),
            **self._words.columns(),
            **self._decays.columns(count),
            **self._covisitation.columns(count),
            **self._visits.columns(),
            "items.features": self.items.features_NF[:count].copy(),
            "items.seen": np.array(self._seen, np.bool_),
        }
        for name, counts in self.views.items():
            columns |= {f"views.{name}.{column}": values for column, values in counts.columns().items()}
        views = {name: counts.view.definition_hash() for name, counts in self.views.items()}
        facts = {
            "offset": self.offset,
            "now_us": self.now_us,
            "events_by_type": self.events_by_type,
            "views": views,
        }
        return StateCopy(self.offset, self.rules.fingerprint(), columns, json.dumps(facts, sort_keys=True))

    @classmethod
    def restored(cls, rules: Rules, copy: StateCopy, views: Iterable[WindowedView] = ()) -> State:
        """The state that `copy` was taken from. ValueError when it was folded by other rules.

        Of the declared views it holds those of `views` that the copy holds as they are defined now.
        """
        if copy.fingerprint != rules.fingerprint():
            raise ValueError(f"folded by rules {copy.fingerprint[:12]}, these are {rules.fingerprint()[:12]}")
        state, facts = cls(rules), json.loads(copy.facts)
        state.offset, state.now_us = facts["offset"], facts["now_us"]
        state.events_by_type = facts["events_by_type"]
        state._restore(copy.columns)
        for view in views:
            if facts.get("views", {}).get(view.name) == view.definition_hash():
                state.views[view.name] = ViewCounts.restored(
                    view, _under(f"views.{view.name}.", copy.columns), state.offset, state.now_us
                )
        return state

    def _restore(self, columns: Columns) -> None:
        for part in (self.histories, self.windows, self.entities, self.catalogue, self._words):
            part.restore(columns)
        for counted in (self._decays, self._covisitation, self._visits):
            counted.restore(columns)
        features = columns["items.features"].astype(np.float32)
        self._seen = columns["items.seen"].tolist()
        self.items.grow(len(features))
        self.items.set_features(np.arange(len(features), dtype=np.uint32), features)


def _under(prefix: str, columns: Columns) -> Columns:
    return {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}


def rows_of(facts: Iterable[Fact], rules: Rules | None = None) -> list[ClosedGroup]:
    """The training groups that a log closes, folded from its beginning."""
    state = State(rules)
    return [group for fact in facts for group in state.apply(fact)]


__all__ = ["State", "StateCopy", "Tick", "rows_of"]
