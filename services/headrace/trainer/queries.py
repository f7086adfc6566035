"""Lessons for the query tower: words that should lead to an item.

Q queries.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.runtime.erasures import Erasure
from headrace.runtime.privacy import UNKEYED, Privacy
from headrace.trainer.arrays import Arrays, packed_json, unpacked_json
from headrace.trainer.records import Events, Searched

# a search that leads to an item within this time was about it
_ANSWER_US = 10 * 60 * 1_000_000
_KEPT_PAIRS = 4_096
_KEPT_SEARCHES = 4_096
_WORDS = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Lesson:
    """Texts, and the item that each should find."""

    texts: tuple[str, ...]
    ordinals: NDArray[np.int64]


class SearchPairs:
    """Searches and what the same person then viewed, put in the cart or bought; bounded."""

    def __init__(self, privacy: Privacy = UNKEYED) -> None:
        self._privacy = privacy
        self._last: dict[str, tuple[str, int]] = {}
        # words, item, and a keyed hash of who looked for it
        self._pairs: deque[tuple[str, int, int]] = deque(maxlen=_KEPT_PAIRS)

    def fold(self, searches: Sequence[Searched], events: Events) -> int:
        """Takes in a slice; how many new pairs it made. A search counts from the moment that it is known."""
        for search in searches:
            self._last.pop(search.user_key, None)
            self._last[search.user_key] = (search.query, search.time_us)
        while len(self._last) > _KEPT_SEARCHES:
            self._last.pop(next(iter(self._last)))
        found = [pair for row in range(len(events)) if self._last and (pair := self._pair(events, row))]
        self._pairs.extend(found)
        return len(found)

    def _pair(self, events: Events, row: int) -> tuple[str, int, int] | None:
        user_key = events.user_keys[events.users[row]]
        query, asked_us = self._last.get(user_key, ("", 0))
        is_answer = query and 0 <= events.times_us[row] - asked_us <= _ANSWER_US
        return (query, int(events.ordinals[row]), self._privacy.owner(user_key)) if is_answer else None

    def erase(self, erasure: Erasure) -> int:
        """Forgets what people looked for; how many searches."""
        before = len(self._last) + len(self._pairs)
        self._last = {key: asked for key, asked in self._last.items() if not erasure.names(self._privacy, key)}
        kept = [pair for pair in self._pairs if pair[2] not in erasure.owners]
        self._pairs = deque(kept, maxlen=_KEPT_PAIRS)
        return before - len(self._last) - len(self._pairs)

    def sample(self, count: int, rng: np.random.Generator) -> Lesson:
        """Up to `count` pairs."""
        count = min(count, len(self._pairs))
        chosen = [self._pairs[i] for i in rng.integers(0, max(len(self._pairs), 1), count)]
        return Lesson(tuple(query for query, _, _ in chosen), np.array([at for _, at, _ in chosen], np.int64))

    def arrays(self) -> Arrays:
        return {"state": packed_json([self._last, list(self._pairs)])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        last, pairs = unpacked_json(arrays["state"])
        self._last = {key: (query, time_us) for key, (query, time_us) in last.items()}
        self._pairs = deque([(query, at, owner) for query, at, owner in pairs], maxlen=_KEPT_PAIRS)


def pseudo_queries(texts: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """For each text some of its words in random order, as a person would type them."""
    return tuple(_some_words(text, rng) for text in texts)


def _some_words(text: str, rng: np.random.Generator) -> str:
    words = _WORDS.findall(text)
    count = int(rng.integers(1, min(len(words), 4) + 1)) if words else 0
    return " ".join(words[i] for i in rng.permutation(len(words))[:count])
