"""Dated facts as features of an item for a person, joined as of a moment: is it promoted, may they use a coupon.

A product has its own facts and those of its first category and brand. Without a store those of all stores count.
A person has those that are about them or about a device of theirs.
"""

# N items, R rows of facts

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.dated_facts import CAMPAIGN, COUPON, DISCOUNT, PROMOTION, ROW, Rows, holding
from headrace.feature_store.entities import Codes
from headrace.feature_store.facts import BRAND, CATEGORY, USER, VISITOR, Entity
from headrace.feature_store.fold import State

CONTEXT_FEATURES = ("on_promotion", "discount_fact", "has_coupon", "in_campaign")


def context_facts(
    state: State,
    user_key: str,
    ordinals: NDArray[np.uint32],
    time_us: int,
    *,
    offset: int | None = None,
    store_id: str = "",
) -> dict[str, NDArray[np.float32]]:
    """CONTEXT_FEATURES by name, a float32 an item, at `time_us`, as known at `offset` (None: all that is folded).

    on_promotion, has_coupon and in_campaign are 0 or 1; discount_fact is the largest share taken off, 0 for none.
    """
    known = state.offset if offset is None else offset
    rows_R, item_R = _item_rows(state, ordinals)
    holds_R = holding(rows_R, time_us, known) & state.dated_facts.in_store(rows_R, store_id)
    campaigns = _campaigns(state, user_key, time_us, known)
    family_R, campaign_R = rows_R["family"], rows_R["campaign"]
    for_them_R = (campaign_R == 0) | np.isin(campaign_R, campaigns)
    discount_N = np.zeros(len(ordinals), np.float32)
    taken_off_R = holds_R & (family_R == DISCOUNT)
    np.maximum.at(discount_N, item_R[taken_off_R], rows_R["number"][taken_off_R])
    return {
        "on_promotion": _any(item_R[holds_R & (family_R == PROMOTION)], len(ordinals)),
        "discount_fact": discount_N,
        "has_coupon": _any(item_R[holds_R & (family_R == COUPON) & for_them_R], len(ordinals)),
        "in_campaign": np.full(len(ordinals), len(campaigns) > 0, np.float32),
    }


def user_entity(user_key: str) -> Entity:
    """Whom the facts about the owner of a history are about."""
    kind = USER if user_key.startswith("u:") else VISITOR
    return kind, user_key[2:]


def _campaigns(state: State, user_key: str, time_us: int, offset: int) -> NDArray[np.uint32]:
    members = state.identities.members_of(user_key)
    rows = np.frombuffer(b"".join(state.dated_facts.rows(user_entity(member)) for member in members), ROW)
    campaigns: NDArray[np.uint32] = rows["campaign"][holding(rows, time_us, offset) & (rows["family"] == CAMPAIGN)]
    return campaigns


def _item_rows(state: State, ordinals: NDArray[np.uint32]) -> tuple[Rows, NDArray[np.int64]]:
    """All rows that may concern the items, and which item each concerns."""
    named = ordinals.tolist()
    own = [state.dated_facts.product_rows(ordinal) for ordinal in named]
    entities = state.entities
    shared = [
        *_shared(state, CATEGORY, entities.categories, entities.category_of, named),
        *_shared(state, BRAND, entities.brands, entities.brand_of, named),
    ]
    parts = own + [rows for rows, _ in shared]
    places = np.concatenate([np.arange(len(named)), np.array([place for _, place in shared], np.int64)])
    counts = [len(part) // ROW.itemsize for part in parts]
    return np.frombuffer(b"".join(parts), ROW), np.repeat(places, counts)


def _shared(
    state: State, kind: int, codes: Codes, code_of: Sequence[int], ordinals: list[int]
) -> list[tuple[bytes, int]]:
    facts = state.dated_facts
    by_code: Mapping[int | None, bytes] = {codes.known(name): facts.rows((kind, name)) for name in facts.entities(kind)}
    if not by_code:
        return []
    of_items = [code_of[ordinal] if ordinal < len(code_of) else 0 for ordinal in ordinals]
    return [(by_code[code], place) for place, code in enumerate(of_items) if code and code in by_code]


def _any(items: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    return (np.bincount(items, minlength=count) > 0).astype(np.float32)
