"""The built-in feature views: what is computed, from what, over which windows.

A deployment adds windowed counts of its own (`windowed_view.py`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.context_facts import CONTEXT_FEATURES
from headrace.feature_store.fold import State
from headrace.feature_store.windowed_view import definition_hash
from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_VERSION
from headrace.model.items import (
    DECAY_COLUMNS,
    DECAY_FEATURES,
    ITEM_FEATURES,
    WINDOW_COLUMNS,
    WINDOW_FEATURES,
    WINDOWS_US,
)


@dataclass(frozen=True, slots=True)
class View:
    """Features of one kind of entity that are computed together."""

    name: str
    entity: str
    features: tuple[str, ...]
    description: str
    version: int = 1
    windows: tuple[str, ...] = ()
    # whether its values are read as they are held; else a ranker computes them
    is_online: bool = True

    @property
    def key(self) -> str:
        return f"{self.name}@{self.version}"

    def definition_hash(self) -> str:
        """SHA-256 of all but the description."""
        return definition_hash([self.name, self.version, self.entity, self.features, self.windows])


_BEFORE, _AFTER = WINDOW_COLUMNS.start, DECAY_COLUMNS.stop
_DOCUMENT = "what the product document says, the words of its title, and the first sight"
_COVISITATION = "decayed shares of the visits that other items were part of"
_CANDIDATE = "what a ranker scores an item for a person by"
_FACTS = "what is said to hold now of the item, its category and its brand, for the person"
_EACH = tuple(WINDOWS_US)
_WINDOWS = "counts over 5 minutes, 1 hour, 1 day and 7 days, by ring buckets of 1/64 of the window"

DATED_FACTS = "dated_facts"
USER_FEATURES = tuple(f"user_{name}" for name in WINDOW_FEATURES)
VIEWS = (
    View("item_document", "item", ITEM_FEATURES[:_BEFORE] + ITEM_FEATURES[_AFTER:], _DOCUMENT, FEATURE_VERSION),
    View("item_windows", "item", WINDOW_FEATURES, f"events that name the item: {_WINDOWS}", windows=_EACH),
    View("item_decay", "item", DECAY_FEATURES, "log of forward-decayed counts at half-lives of 1, 7 and 30 days"),
    View("item_covisitation", "item", ("neighbours",), _COVISITATION, is_online=False),
    View("user_windows", "user", USER_FEATURES, f"events of the person: {_WINDOWS}", windows=_EACH),
    View("category_windows", "category", WINDOW_FEATURES, f"events that name its items: {_WINDOWS}", windows=_EACH),
    View("brand_windows", "brand", WINDOW_FEATURES, f"events that name its items: {_WINDOWS}", windows=_EACH),
    View(DATED_FACTS, "candidate", CONTEXT_FEATURES, _FACTS),
    View("candidate", "candidate", CANDIDATE_FEATURES, _CANDIDATE, FEATURE_VERSION, is_online=False),
)
USER_SCHEMA = hashlib.sha256("\n".join(USER_FEATURES).encode()).hexdigest()


def user_features(state: State, user_key: str) -> NDArray[np.float32]:
    """The person's USER_FEATURES now; zeros for one never seen."""
    return np.maximum(state.user_counts(user_key), 0).astype(np.float32)
