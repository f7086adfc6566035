"""A space takes over only when it fulfils what was asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from headrace.index.batch import Batch
from headrace.index.cut_over import Conditions, CutOver, Fitness, coverage, cut_over, probed_recall
from headrace.index.devices import compiled_kernels
from headrace.index.flat_segment import FlatSegment
from headrace.index.space import Space
from headrace.index.store import Store
from headrace.runtime.errors import FailedPreconditionError, NotFoundError

D = 8


@pytest.fixture
def readers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path, FlatSegment)
    await opened.create("old", D)
    await opened.create("new", D)
    await opened.activate("old")
    yield opened
    await opened.close()


def batch(space: str, ordinals: range | list[int], first: int = 1, *, deletes: bool = False) -> Batch:
    rng = np.random.default_rng(first)
    vectors = np.zeros((len(ordinals), D)) if deletes else rng.standard_normal((len(ordinals), D))
    gone = np.full(len(ordinals), deletes)
    return Batch(space, first, np.array(ordinals, np.uint32), vectors.astype(np.float32), gone, first)


async def test_a_space_that_is_fit_takes_over_and_its_fitness_is_told(
    store: Store, readers: ThreadPoolExecutor
) -> None:
    await store.apply(batch("old", range(100)))
    await store.apply(batch("new", range(150)))
    done = await cut_over(store, "new", Conditions(150, 1.0, 1.0), readers)
    assert done == CutOver("old", Fitness(150, 1.0, 1.0))
    assert store.active == "new"


@pytest.mark.parametrize(
    ("conditions", "complaints"),
    [
        (Conditions(min_sequence=81), ["sequence is 80, must be at least 81"]),
        (Conditions(min_coverage=0.81), ["coverage is 0.8000, must be at least 0.81"]),
        (
            Conditions(100, 0.9, 1.0),
            ["sequence is 80, must be at least 100", "coverage is 0.8000, must be at least 0.9"],
        ),
    ],
)
async def test_every_condition_that_is_not_met_is_named_and_nothing_changes(
    store: Store, readers: ThreadPoolExecutor, conditions: Conditions, complaints: list[str]
) -> None:
    await store.apply(batch("old", range(100)))
    await store.apply(batch("new", range(80)))
    with pytest.raises(FailedPreconditionError) as refused:
        await cut_over(store, "new", conditions, readers)
    assert str(refused.value) == f"space 'new' is not activated: {'; '.join(complaints)}"
    assert store.active == "old"


async def test_a_space_is_not_asked_for_items_that_are_gone(store: Store, readers: ThreadPoolExecutor) -> None:
    await store.apply(batch("old", range(100)))
    await store.apply(batch("new", range(80)))
    gone = np.array([*range(80, 100), 4_000_000], np.uint32)
    await cut_over(store, "new", Conditions(min_coverage=1.0, gone=gone), readers)
    assert store.active == "new"


async def test_items_that_only_the_new_space_has_cover_nothing(store: Store) -> None:
    await store.apply(batch("old", range(100)))
    await store.apply(batch("new", range(50, 5000)))
    await store.apply(batch("new", [60, 61], 4951, deletes=True))
    assert coverage(store.space("new"), store.space("old")) == 0.48
    assert coverage(store.space("new"), None) == 1.0
    assert coverage(store.space("old"), store.space("old")) == 1.0


async def test_without_conditions_nothing_is_looked_at(store: Store, readers: ThreadPoolExecutor) -> None:
    assert await cut_over(store, "new", Conditions(), readers) == CutOver("old")


async def test_a_space_that_is_not_there_is_not_found(store: Store, readers: ThreadPoolExecutor) -> None:
    with pytest.raises(NotFoundError):
        await cut_over(store, "newer", Conditions(min_coverage=0.5), readers)


async def test_a_space_that_is_made_anew_while_it_is_looked_at_is_not_activated(store: Store) -> None:
    class Meanwhile(ThreadPoolExecutor):
        """Has the space dropped and made anew before it answers."""

        def submit(self, work, *given):  # type: ignore[no-untyped-def]
            done = super().submit(work, *given)
            done.result()
            store._spaces = {**store._spaces, "new": Space("new", D, FlatSegment(D))}
            return done

    with Meanwhile(1) as readers, pytest.raises(FailedPreconditionError, match="spaces changed meanwhile"):
        await cut_over(store, "new", Conditions(min_coverage=0.0), readers)
    assert store.active == "old"


@pytest.mark.skipif(not compiled_kernels(), reason="the scan is not compiled here")
def test_the_probe_sees_cells_that_find_too_little_and_leaves_them_as_they_are() -> None:
    from headrace.index.cell_segment import CellSegment

    segment = CellSegment(D, cells_from=1_000, recall_goal=0.8)
    space = Space("s", D, segment)
    space.apply(batch("s", range(20_000)).change())
    assert segment.probes > 1
    assert probed_recall(space) > 0.8
    segment._probes = 1
    assert probed_recall(space) < 0.5
    assert segment.probes == 1


async def test_a_space_that_is_only_checked_leaves_the_active_one(store: Store, readers: ThreadPoolExecutor) -> None:
    await store.apply(batch("old", range(100)))
    await store.apply(batch("new", range(80)))
    done = await cut_over(store, "new", Conditions(80, 0.8), readers, check_only=True)
    assert done == CutOver("old", Fitness(80, 0.8, 1.0))
    assert await cut_over(store, "new", Conditions(), readers, check_only=True) == CutOver("old")
    with pytest.raises(FailedPreconditionError, match="sequence is 80"):
        await cut_over(store, "new", Conditions(81), readers, check_only=True)
    with pytest.raises(NotFoundError):
        await cut_over(store, "nowhere", Conditions(), readers, check_only=True)
    assert store.active == "old"
