"""The whole state as a pure fold of log records: the same facts and rules give the same state, bit for bit.

Time is the newest event time folded so far. A cancellation takes the counts of the person's newest purchase of each
named item back (its windows and decays, not its repeats), and marks that event of the history as removed; one that is
no longer known keeps its counts. Windows of users, categories and brands count what was done, and it was done.

What was done under a key stays under it: a person with devices is put together from the keys whenever the person is
looked at, for serving and training alike (see `identities`).

A shard folds the whole log. Open visits, purchases and identities are everybody's, so what is true of items is the
same in every shard, bit for bit; histories, counts and training groups are those of its own people. What a joined
device did is then its own: it may be in another shard.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns
from headrace.feature_store.dated_facts import DatedFacts
from headrace.feature_store.facts import DatedFact, Fact, IdentityFact, ProductFact, UserAct
from headrace.feature_store.histories import Histories, history_of
from headrace.feature_store.identities import Identities
from headrace.feature_store.in_process_tier import InProcessTier
from headrace.feature_store.item_state import KIND, ItemState
from headrace.feature_store.rules import Rules
from headrace.feature_store.state_copy import StateCopy
from headrace.feature_store.training_rows import ClosedGroup, OpenGroup, is_sampled, open_group
from headrace.feature_store.user_tier import UserTier
from headrace.feature_store.view_counts import ViewCounts
from headrace.feature_store.visits import Visit, Visits
from headrace.feature_store.windowed_view import WindowedView
from headrace.feature_store.windows import WIDTH
from headrace.model.candidates import RECENT_ITEMS
from headrace.model.events import EventCode
from headrace.model.history import is_customer, recent_distinct
from headrace.model.items import DAY_US
from headrace.runtime.people_shards import holds_person

log = logging.getLogger(__name__)


class State:
    """What is true after every fact so far.

    Which people are held in memory, and which rest in `tier`, changes nothing about it.
    """

    def __init__(
        self, rules: Rules | None = None, tier: UserTier | None = None, views: Iterable[WindowedView] = ()
    ) -> None:
        self.rules = rules or Rules()
        self._ttl_us = round(self.rules.user_ttl_days * DAY_US)
        self.offset = 0
        self.now_us = 0
        self.events_by_type: dict[str, int] = {}
        self.histories = Histories(self.rules.history_events, InProcessTier() if tier is None else tier)
        self.of_items = ItemState(self.rules.covisitation_half_life_days)
        self.items = self.of_items.items
        self.windows = self.of_items.windows
        self.entities = self.of_items.entities
        self.catalogue = self.of_items.catalogue
        self.dated_facts = DatedFacts(int(self.rules.fact_horizon_days * DAY_US))
        self.identities = Identities()
        self._visits = Visits()
        # declared views by name
        self.views = {view.name: ViewCounts(view, self.rules.shard) for view in views}

    def apply(self, fact: Fact) -> list[ClosedGroup]:
        """Folds one fact; returns the training groups that it closed.

        UnavailableError when its person is in a tier that can't be reached: nothing has changed then.
        """
        closed: list[ClosedGroup] = []
        if isinstance(fact, UserAct):
            if fact.ordinals:
                self.histories.hold(self._needed(fact))
            closed = self._advance(fact.time_us, fact.offset)
            self._act(fact)
        elif isinstance(fact, IdentityFact):
            self._change_identity(fact)
        elif isinstance(fact, ProductFact):
            # a change carries the door's clock, which in a replay is years ahead of the shop's
            self.of_items.describe(fact, self.now_us)
        elif isinstance(fact, DatedFact):
            self.dated_facts.put(fact, self.now_us)
        for view in self.views.values():
            view.apply(fact)
        self.offset = fact.offset
        return closed

    def owns(self, user_key: str) -> bool:
        """Whether all is here that is told of the person under this key."""
        return holds_person(self.rules.shard, user_key)

    def read_together(self, user_key: str) -> tuple[str, ...]:
        """The keys that are told of as one person, whose key comes first."""
        return self.identities.members_of(user_key) if self.rules.shard.count == 1 else (user_key,)

    def join(self, counts: ViewCounts) -> None:
        """Takes in a view that was folded beside this state, up to the same offset; from now on it is folded here."""
        if counts.offset != self.offset:
            raise ValueError(f"{counts.view.key} is folded up to {counts.offset}, the state up to {self.offset}")
        self.views[counts.view.name] = counts

    def hold_users(self, facts: Iterable[Fact]) -> int:
        """Brings the people whom facts need into memory at once; how many were not there."""
        acts = (fact for fact in facts if isinstance(fact, UserAct) and fact.ordinals)
        return self.histories.hold(user_key for act in acts for user_key in self._needed(act))

    def _needed(self, act: UserAct) -> tuple[str, ...]:
        """The keys whose histories the act's effect depends on."""
        members = self.identities.members_of(act.user_key)
        return (*members, act.device_key) if act.device_key else members

    def _advance(self, time_us: int, offset: int) -> list[ClosedGroup]:
        if time_us <= self.now_us:
            return []
        self.now_us = time_us
        if self._ttl_us:
            self.histories.cutoff_us = time_us - self._ttl_us
        self.dated_facts.advance(time_us)
        closed = list(self._visits.end(time_us, offset))
        self.of_items.advance(time_us)
        return closed

    def _act(self, act: UserAct) -> None:
        self.events_by_type[act.event_type] = self.events_by_type.get(act.event_type, 0) + 1
        if act.device_key and self.rules.stitch and self.identities.note_log_in(act.device_key, act.user_key):
            self._hand_over(act.device_key)
        if not act.ordinals:
            return
        self.of_items.see(act.ordinals, act.time_us)
        if act.is_cancel:
            self._cancel(act)
            return
        if act.code in KIND:
            self._count(act)
        if act.code == EventCode.PURCHASE or self.owns(act.user_key):
            self.histories.append(act.user_key, np.array(act.ordinals), act.code, act.time_us, act.channel)

    def _change_identity(self, fact: IdentityFact) -> None:
        if fact.is_joined:
            if self.rules.shard.count > 1 and not self.identities:
                log.warning("devices_read_apart", extra={"shard": str(self.rules.shard), "offset": fact.offset})
            self.identities.join(fact.device_key, fact.user_key)
            self._hand_over(fact.device_key)
        else:
            self.identities.split(fact.device_key, fact.user_key)

    def _hand_over(self, device_key: str) -> None:
        person = self.identities.person_of(device_key)
        if person != device_key:
            self._visits.hand_over(device_key, person, self.now_us)

    def _count(self, act: UserAct) -> None:
        visit = self._visit(self.identities.members_of(act.user_key))
        if visit.group is not None:
            visit.group.label(act.ordinals, act.code, self.items)
        self.of_items.pair(visit, act)
        own_key = act.user_key if self.owns(act.user_key) else None
        self.of_items.count(act, own_key, self._marks(visit, act), self.now_us)

    def _marks(self, visit: Visit, act: UserAct) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """What a purchase counts as by who made it, and which of its items do."""
        if act.code != EventCode.PURCHASE:
            return
        ordinals = np.array(act.ordinals)
        members = self.identities.members_of(visit.user_key)
        yield "log_repeats_30d", ordinals[self.histories.has_bought(members, ordinals)]
        if not is_customer(visit.user_key):
            return
        yield "log_customer_purchases_7d", ordinals
        yield "log_customer_purchases_30d", ordinals
        if visit.is_first:
            yield "log_first_purchases_30d", ordinals

    def _visit(self, members: Sequence[str]) -> Visit:
        user_key = members[0]
        visit = self._visits.of(user_key)
        if visit is None:
            group = self._group(user_key)
            visit = Visit(user_key, self.now_us, [], [], group, not self.histories.has_bought_any(members))
            self._visits.begin(visit)
        self._visits.touch(user_key, self.now_us)
        return visit

    def _group(self, user_key: str) -> OpenGroup | None:
        if not (self.owns(user_key) and is_sampled(user_key, self.now_us, self.rules.row_sample_rate)):
            return None
        history = self.histories.joined_bytes_of(self.read_together(user_key))
        recent = recent_distinct(history_of(history).ordinals, RECENT_ITEMS)
        self.of_items.freshen(recent.astype(np.int64))
        return open_group(user_key, history, self.items, self.now_us, self.rules.row_candidates)

    def _cancel(self, act: UserAct) -> None:
        for ordinal, time_us in self.histories.take_back(act.user_key, np.array(act.ordinals), act.time_us):
            self.of_items.take_back(ordinal, time_us, self.now_us)

    def user_counts(self, user_key: str) -> NDArray[np.int32]:
        """The windowed counts of the person whose key it is; zeros for one never seen."""
        counts = np.zeros(WIDTH, np.int32)
        for member in self.read_together(user_key):
            if (row := self.entities.user_row(member)) is not None:
                counts += self.windows.of(row)
        return counts

    def user_keys(self) -> set[str]:
        """Everybody whom something here names; others may rest in the tier."""
        held = (self.histories.held_keys(), self.entities.user_keys(), self._visits.user_keys())
        return set().union(*held, self.identities.keys(), self.dated_facts.user_keys())

    def erase(self, user_keys: Iterable[str]) -> None:
        """Takes keys out: their histories, their names at counts, their visits, and what they are joined to."""
        user_keys = list(user_keys)
        self.identities.erase(user_keys)
        self.dated_facts.erase(user_keys)
        for user_key in user_keys:
            self.histories.hold((user_key,))
            self.histories.erase(user_key)
            self.entities.erase_user(user_key)
            self._visits.erase(user_key)
            for view in self.views.values():
                view.forget(user_key)

    def copy(self) -> StateCopy:
        """Everything that the next fact's effect depends on."""
        columns = {
            **self.of_items.columns(),
            **self.dated_facts.columns(),
            **self.identities.columns(),
            **self._visits.columns(),
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
        text = json.dumps(facts, sort_keys=True)
        return StateCopy(self.offset, self.rules.fingerprint(), columns, text, self.histories.copy())

    @classmethod
    def restored(
        cls, rules: Rules, columns: Columns, facts: str, tier: UserTier, views: Iterable[WindowedView] = ()
    ) -> State:
        """The state of a copy with these columns and facts, when the tier is where it was then.

        Of the declared views it holds those of `views` that the copy holds as they are defined now.
        """
        state, parsed = cls(rules, tier), json.loads(facts)
        state.offset, state.events_by_type = parsed["offset"], parsed["events_by_type"]
        state._restore(columns)
        state.now_us = parsed["now_us"]
        if state._ttl_us:
            state.histories.cutoff_us = state.now_us - state._ttl_us
        for view in views:
            if parsed.get("views", {}).get(view.name) == view.definition_hash():
                kept = _under(f"views.{view.name}.", columns)
                state.views[view.name] = ViewCounts.restored(view, kept, state.offset, state.now_us, rules.shard)
        return state

    def _restore(self, columns: Columns) -> None:
        for part in (self.of_items, self.dated_facts, self.identities, self._visits):
            part.restore(columns)


def _under(prefix: str, columns: Columns) -> Columns:
    return {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}


def rows_of(facts: Iterable[Fact], rules: Rules | None = None) -> list[ClosedGroup]:
    """The training groups that a log closes, folded from its beginning."""
    state = State(rules)
    return [group for fact in facts for group in state.apply(fact)]
