"""Whether a space is fit to take over from the active one: how far it has come, what it holds and how well it finds."""

# N rows, D dimension

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np

from headrace.index.checking import Checkable
from headrace.index.rows import NO_ORDINALS, U32
from headrace.index.space import Space
from headrace.index.store import Store
from headrace.runtime.errors import FailedPreconditionError

_PROBES, _K, _SEED = 200, 100, 7
# queries that are answered twice at once: rows are held back no longer than that takes
_TOGETHER = 20


@dataclass(frozen=True)
class Conditions:
    """What a space must fulfil to be activated; `gone` are items that need not be there any more."""

    min_sequence: int = 0
    min_coverage: float | None = None
    min_recall: float | None = None
    gone: U32 = field(default_factory=NO_ORDINALS.copy)

    @property
    def are_any(self) -> bool:
        return self.min_sequence > 0 or self.min_coverage is not None or self.min_recall is not None


@dataclass(frozen=True)
class Fitness:
    """What was found of a space."""

    sequence: int
    coverage: float
    # 1 until it is known
    recall: float = 1.0


@dataclass(frozen=True)
class CutOver:
    """The space that was active before, and what was found of the new one; nothing when nothing was asked for."""

    previous: str
    fitness: Fitness | None = None


async def cut_over(
    store: Store, name: str, conditions: Conditions, readers: Executor, *, check_only: bool = False
) -> CutOver:
    """Activates a space that fulfils its conditions, or only looks. FailedPreconditionError: it does not fulfil them.

    NotFoundError: no such space. Nothing changed then.
    """
    if not conditions.are_any:
        return CutOver(store.active if check_only and store.space(name) else await store.activate(name))
    space, active = store.space(name), _active(store)
    found = await asyncio.get_running_loop().run_in_executor(readers, _checked, space, active, conditions)
    if store.space(name) is not space or _active(store) is not active:
        raise FailedPreconditionError(f"space {name!r} is not activated: spaces changed meanwhile")
    return CutOver(store.active if check_only else await store.activate(name), found)


def _active(store: Store) -> Space | None:
    return store.space("") if store.active else None


def _checked(space: Space, active: Space | None, conditions: Conditions) -> Fitness:
    """What was found of a space. FailedPreconditionError: it does not fulfil the conditions."""
    # the sequence is read before the rows: they are at least that new
    found = Fitness(space.applied_sequence, coverage(space, active, conditions.gone))
    unmet = list(_unmet(conditions, found))
    # scores every vector: only of a space that is fit otherwise
    if not unmet:
        found = replace(found, recall=probed_recall(space))
        unmet = list(_unmet(conditions, found))
    if unmet:
        raise FailedPreconditionError(f"space {space.name!r} is not activated: {'; '.join(unmet)}")
    return found


def coverage(space: Space, active: Space | None, gone: U32 = NO_ORDINALS) -> float:
    """The share of the active space's items, but those that are gone, that a space holds; 1 of none."""
    if active is None or active is space:
        return 1.0
    asked, held = active.segment.held(), space.segment.held()
    asked[gone[gone < len(asked)]] = False
    count = int(asked.sum())
    both = min(len(asked), len(held))
    return int((asked[:both] & held[:both]).sum()) / count if count else 1.0


def probed_recall(space: Space) -> float:
    """The share of the best 100 that a search finds with up to 200 of the space's own vectors as queries."""
    segment, ordinals = space.segment, space.ordinals()
    if not isinstance(segment, Checkable):
        return 1.0  # scores every vector always
    chosen = np.random.default_rng(_SEED).permutation(len(ordinals))[:_PROBES]
    queries_ND = segment.get(ordinals[chosen]).vectors_ND
    parts = [queries_ND[start : start + _TOGETHER] for start in range(0, len(queries_ND), _TOGETHER)]
    found = [segment.recall(part_QD, _K) * len(part_QD) for part_QD in parts]
    return sum(found) / len(queries_ND) if parts else 1.0


def _unmet(conditions: Conditions, found: Fitness) -> Iterator[str]:
    if found.sequence < conditions.min_sequence:
        yield f"sequence is {found.sequence}, must be at least {conditions.min_sequence}"
    if conditions.min_coverage is not None and found.coverage < conditions.min_coverage:
        yield f"coverage is {found.coverage:.4f}, must be at least {conditions.min_coverage:g}"
    if conditions.min_recall is not None and found.recall < conditions.min_recall:
        yield f"recall is {found.recall:.4f}, must be at least {conditions.min_recall:g}"
