"""Training groups: candidates with the features that they had just before a person did something.

A *moment* is a visit of one person: views, carts and purchases with no gap of more than 30 minutes of log time.
At its first event, before that is applied, all that features are made of is frozen: the history, what is known of
its items, the candidates and their columns. What the person then touches becomes the label. Nothing later can
change a row.

Candidates are sampled in two strata, three in four from the proposals and one in four from all other items that
could be shown; an item that is touched outside the sample gets a row of its own, with its columns just before
that. `weights` undo the sampling: a row that was not touched stands for `weight` items, one that was touched for
itself. (Without weights, items that no source proposes would look good: most of their rows are those touched.)
"""

# C candidates, F features

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.histories import history_of
from headrace.model.candidates import Person, SourceLimits, features_for, propose_for
from headrace.model.items import Items

_LIMITS = SourceLimits()
_PROPOSED_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class ClosedGroup:
    """One closed moment. `offset` is that of the record which showed that it had ended."""

    offset: int
    user_key: str
    time_us: int
    history: bytes
    ordinals: NDArray[np.uint32]  # C
    features: NDArray[np.float32]  # C × F
    labels: NDArray[np.uint8]  # C
    weights: NDArray[np.float32]  # C

    @property
    def nbytes(self) -> int:
        return len(self.history) + self.features.nbytes + 9 * len(self.ordinals)


@dataclass(slots=True)
class OpenGroup:
    """A moment that goes on: rows so far, in the order in which they came."""

    time_us: int
    history: bytes
    person: Person
    ordinals: list[int]
    item_columns: list[NDArray[np.float32]]
    weights: list[float]
    labels: dict[int, int] = field(default_factory=dict)
    places: set[int] = field(default_factory=set)

    def label(self, ordinals: list[int], code: int, items: Items) -> None:
        """Notes that the person did `code` to the items; those not among the candidates join them."""
        missing = [ordinal for ordinal in ordinals if ordinal not in self.places]
        if missing:
            self.item_columns.append(items.features_NF[missing])
            self.ordinals += missing
            self.places.update(missing)
            self.weights += [1.0] * len(missing)
        for ordinal in ordinals:
            self.labels[ordinal] = max(self.labels.get(ordinal, 0), code)

    def closed(self, offset: int, user_key: str) -> ClosedGroup:
        ordinals = np.array(self.ordinals, np.uint32)
        labels = np.array([self.labels.get(ordinal, 0) for ordinal in self.ordinals], np.uint8)
        return ClosedGroup(
            offset=offset,
            user_key=user_key,
            time_us=self.time_us,
            history=self.history,
            ordinals=ordinals,
            # the time of the opening for all, else a row's ages would tell that it was added later
            features=features_for(self.person, ordinals, np.concatenate(self.item_columns), self.time_us),
            labels=labels,
            weights=np.where(labels > 0, 1.0, self.weights).astype(np.float32),
        )


def open_group(user_key: str, history: bytes, items: Items, now_us: int, candidates: int) -> OpenGroup:
    """A group with its sampled candidates; the sample depends on the person, the time and the items alone."""
    seed = group_hash(user_key, now_us)
    person = Person.of(history_of(history, user_key), items)
    proposed = propose_for(person, items, now_us, _LIMITS).ordinals
    ordinals, weights = _sampled(proposed, items, now_us, candidates, seed)
    chosen = ordinals.tolist()
    return OpenGroup(
        now_us, history, person, chosen, [items.features_NF[ordinals]], weights.tolist(), places=set(chosen)
    )


def group_hash(user_key: str, time_us: int) -> int:
    """32 bits of a moment: the same in every fold."""
    return zlib.crc32(f"{user_key}\0{time_us}".encode())


def is_sampled(user_key: str, time_us: int, rate: float) -> bool:
    """Whether a moment is kept, for a share `rate` of all moments."""
    return rate >= 1 or zlib.crc32(b"rate", group_hash(user_key, time_us)) < rate * 2**32


def _sampled(
    proposed: NDArray[np.uint32], items: Items, now_us: int, limit: int, seed: int
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    first = _spread(proposed, int(limit * _PROPOSED_SHARE), seed)
    others, standing_for = _others(proposed, items, now_us, limit - len(first), seed)
    weights = np.ones(len(first) + len(others), np.float32)
    weights[: len(first)] = len(proposed) / max(len(first), 1)
    weights[len(first) :] = standing_for / max(len(others), 1)
    return np.concatenate([first, others]), weights


def _spread(ordinals: NDArray[np.uint32], limit: int, seed: int) -> NDArray[np.uint32]:
    """At most `limit` of them, each as likely as any other, in ascending order of a hash."""
    if len(ordinals) <= limit:
        return ordinals
    return ordinals[np.argpartition(_mixed(ordinals, seed), limit)[:limit]]


def _others(
    proposed: NDArray[np.uint32], items: Items, now_us: int, limit: int, seed: int
) -> tuple[NDArray[np.uint32], int]:
    """Items that could be shown and were not proposed, and how many such there are."""
    servable = items.is_servable(now_us).copy()
    servable[proposed] = False
    rest = np.flatnonzero(servable).astype(np.uint32)
    return _spread(rest, max(limit, 0), seed), len(rest)


def _mixed(ordinals: NDArray[np.uint32], seed: int) -> NDArray[np.uint64]:
    # splitmix64's finaliser: neighbouring ordinals fall far apart
    mixed = ordinals.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
