"""Feature views: what is computed, from what, over which windows. Registered here, in code, and nowhere else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.fold import State
from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_VERSION
from headrace.model.items import DECAY_FEATURES, ITEM_FEATURES, WINDOW_FEATURES


@dataclass(frozen=True, slots=True)
class View:
    """Features of one kind of entity that are computed together."""

    name: str
    entity: str
    features: tuple[str, ...]
    description: str
    version: int = 1


_OF_ITEMS = len(ITEM_FEATURES) - len(WINDOW_FEATURES) - len(DECAY_FEATURES)
_WINDOWS = "counts over 5 minutes, 1 hour, 1 day and 7 days, by ring buckets of 1/64 of the window"

USER_FEATURES = tuple(f"user_{name}" for name in WINDOW_FEATURES)
VIEWS = (
    View("item_document", "item", ITEM_FEATURES[:_OF_ITEMS], "what the product document says, and the first sight"),
    View("item_windows", "item", WINDOW_FEATURES, f"events that name the item: {_WINDOWS}"),
    View("item_decay", "item", DECAY_FEATURES, "log of forward-decayed counts at half-lives of 1, 7 and 30 days"),
    View("item_covisitation", "item", ("neighbours",), "decayed shares of the visits that other items were part of"),
    View("user_windows", "user", USER_FEATURES, f"events of the person: {_WINDOWS}"),
    View("category_windows", "category", WINDOW_FEATURES, f"events that name an item of the category: {_WINDOWS}"),
    View("brand_windows", "brand", WINDOW_FEATURES, f"events that name an item of the brand: {_WINDOWS}"),
    View("candidate", "candidate", CANDIDATE_FEATURES, "what a ranker scores an item for a person by", FEATURE_VERSION),
)
USER_SCHEMA = hashlib.sha256("\n".join(USER_FEATURES).encode()).hexdigest()


def user_features(state: State, user_key: str) -> NDArray[np.float32]:
    """The person's USER_FEATURES now; zeros for one never seen."""
    return np.maximum(state.user_counts(user_key), 0).astype(np.float32)
