"""The values of selected features in one state: of a person, of items, of a channel.

A pure function of the state between two records, the same for what is served now and for what was true then.
"""

# N items, F features

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.context_facts import CONTEXT_FEATURES, context_facts
from headrace.feature_store.feature_names import ITEM_TABLE, Part, Selection
from headrace.feature_store.fold import State
from headrace.feature_store.histories import history_of
from headrace.feature_store.views import DATED_FACTS, user_features
from headrace.model.history import History
from headrace.model.items import NO_NEIGHBOUR, blank_item
from headrace.runtime.errors import FailedPreconditionError

Values = NDArray[np.float32]

_BLANK = blank_item()
UNKNOWN_ORDINAL = NO_NEIGHBOUR
_BACK_FILL_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of whom features are read: a user key or "", items by ordinal or by product id, a channel's number."""

    user_key: str = ""
    ordinals: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    product_ids: Sequence[str] = ()
    channel: int = 0
    # whose facts count beside those of everywhere; "": those of all stores
    store_id: str = ""
    # of the person's history, newest kept
    max_events: int = 0


@dataclass(frozen=True, slots=True)
class OnlineFeatures:
    """Features as of `offset`, one matrix row an item, and the person's newest events."""

    user: Values  # F
    items: Values  # N × F
    channel: Values  # F
    history: History
    ordinals: NDArray[np.uint32]  # N
    offset: int
    now_us: int


def read_online(state: State, selection: Selection, wanted: Wanted, events: bytes = b"") -> OnlineFeatures:
    """All that is wanted, as of the state's offset, where `events` are the person's.

    FailedPreconditionError: a view of it is not live yet.
    """
    missing = [view for view in selection.views if view not in state.views]
    if missing:
        raise FailedPreconditionError(f"still being back-filled: {', '.join(missing)}", _BACK_FILL_RETRY_S)
    ordinals = _ordinals(state, wanted)
    user = user_values(state, selection, wanted.user_key)
    items = item_values(state, selection, [wanted.user_key], ordinals, wanted.store_id)
    channel = channel_values(state, selection, wanted.channel)
    history = history_of(events).last(wanted.max_events)
    return OnlineFeatures(user, items, channel, history, ordinals, state.offset, state.now_us)


def _ordinals(state: State, wanted: Wanted) -> NDArray[np.uint32]:
    if not wanted.product_ids:
        return wanted.ordinals
    found = (state.catalogue.ordinal(product_id) for product_id in wanted.product_ids)
    return np.array([UNKNOWN_ORDINAL if ordinal is None else ordinal for ordinal in found], np.uint32)


def user_values(state: State, selection: Selection, user_key: str) -> Values:
    """Features of the person, in the order of the selection's names."""
    values = np.empty(len(selection.user.names), np.float32)
    for part in selection.user.parts:
        view = state.views.get(part.source)
        found = user_features(state, user_key) if view is None else view.of(state.read_together(user_key)).sum(axis=0)
        values[part.places] = found[part.columns]
    return values


def channel_values(state: State, selection: Selection, channel: int) -> Values:
    """Features of the channel, in the order of the selection's names."""
    values = np.empty(len(selection.channel.names), np.float32)
    for part in selection.channel.parts:
        values[part.places] = state.views[part.source].of([channel])[0][part.columns]
    return values


def item_values(
    state: State, selection: Selection, user_keys: Sequence[str], ordinals: NDArray[np.uint32], store_id: str = ""
) -> Values:
    """Features of the items, a row each, for one person or for a person each."""
    columns = selection.item
    if len(columns.parts) == 1 and columns.parts[0].source == ITEM_TABLE:
        return _of_table(state, columns.parts[0].columns, ordinals)
    values = np.empty((len(ordinals), len(columns.names)), np.float32)
    for part in columns.parts:
        if part.source == DATED_FACTS:
            values[:, part.places] = _facts_for(state, user_keys, ordinals, store_id)[:, part.columns]
        else:
            values[:, part.places] = _of_part(state, part, ordinals)
    return values


def _facts_for(state: State, user_keys: Sequence[str], ordinals: NDArray[np.uint32], store_id: str) -> Values:
    if len(user_keys) == 1:
        return np.stack([*context_facts(state, user_keys[0], ordinals, state.now_us, store_id=store_id).values()], 1)
    values = np.empty((len(ordinals), len(CONTEXT_FEATURES)), np.float32)
    places_of: dict[str, list[int]] = {}
    for place, user_key in enumerate(user_keys):
        places_of.setdefault(user_key, []).append(place)
    for user_key, places in places_of.items():
        values[places] = _facts_for(state, [user_key], ordinals[places], store_id)
    return values


def _of_part(state: State, part: Part, ordinals: NDArray[np.uint32]) -> Values:
    if part.source == ITEM_TABLE:
        return _of_table(state, part.columns, ordinals)
    view = state.views.get(part.source)
    if view is not None:
        return view.of_items(ordinals.tolist())[:, part.columns]
    # the built-in counts of categories and brands
    kind = part.source.removesuffix("_windows")
    return np.maximum(state.of_items.group_counts(kind, ordinals.tolist())[:, part.columns], 0).astype(np.float32)


def _of_table(state: State, columns: NDArray[np.int64], ordinals: NDArray[np.uint32]) -> Values:
    known = ordinals < state.items.count
    if known.all():
        # one axis after the other: a third of the time of indexing by both at once
        return state.items.features_NF.take(ordinals, axis=0).take(columns, axis=1)
    values = np.tile(_BLANK[columns], (len(ordinals), 1))
    values[known] = _of_table(state, columns, ordinals[known])
    return values
