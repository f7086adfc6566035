"""Two learners over one log publish into one registry, one artifact store and one index, at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError

from headrace.model.towers import VECTOR_FORM
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.channels import open_channel
from headrace.runtime.confirmations import Confirmations
from headrace.runtime.errors import UnavailableError
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.privacy import open_privacy
from headrace.trainer import index_replica
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.index_replica import Fit
from headrace.trainer.index_vectors import IndexVectors
from headrace.trainer.lineage import Lineage
from headrace.trainer.loop import LearningLoop
from headrace.trainer.own_releases import OwnReleases
from headrace.trainer.plan_rows import PlanChange
from headrace.trainer.publisher import Publisher
from headrace.trainer.registry import Registry, open_registry, registry_url
from headrace.trainer.releases import Releases
from headrace.trainer.served_lineage import ServedLineage
from headrace.trainer.space_keeper import SpaceKeeper


@dataclass
class Learning:
    """One learner, as the trainer composes it."""

    name: str
    loop: LearningLoop
    lineage: Lineage
    delta_log: DeltaLog
    publisher: Publisher


@asynccontextmanager
async def _learning(
    suite, folder: Path, name: str, registry: Registry, index: str, beside: bool = False
) -> AsyncIterator[Learning]:
    settings = suite.settings(lineage=name, beside=beside, publish_every_s=0.1, keep_spaces=2)
    event_log, privacy = open_event_log(suite.common), open_privacy(suite.common)
    delta_log = DeltaLog(folder / name / "deltas.db", name, settings.dimension, VECTOR_FORM)
    own = OwnReleases(folder / name / "own-releases.db")
    releases = Releases(ArtifactStore(str(folder / "artifacts")), registry, settings.keep_releases, own)
    lineage = Lineage(
        settings, delta_log, Checkpoints(folder / name / "checkpoints"), privacy=privacy, own_releases=own
    )
    channel = open_channel(index)
    publisher = Publisher([[(index, channel)]], delta_log, settings.dimension, 500_000, Fit())
    confirmations = Confirmations(folder / name / "erasures.json", f"trainer-{name}", privacy)
    loop = LearningLoop(settings, event_log, lineage, delta_log, releases, publisher.wake, confirmations, privacy)
    served = ServedLineage(registry)
    served.look()
    publisher.on_new_space, publisher.serving = loop.want_release, lambda: served.name
    loop.is_filled, loop.serving = publisher.has_filled, publisher.serving
    keeper = SpaceKeeper([[(index, channel)]], delta_log, releases, served, settings.keep_spaces)
    tasks = [asyncio.create_task(each.run()) for each in (loop, publisher, keeper)]
    try:
        yield Learning(name, loop, lineage, delta_log, publisher)
    finally:
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.wait(tasks)
        await loop.close()
        await channel.close()
        await event_log.close()
        own.close()
        delta_log.close()
        for task in done:
            assert task.cancelled(), task.exception()


async def _is_published(suite, *learnings: Learning) -> None:
    """Until each has a release of all that is logged, and the index all of its vectors."""
    log = open_event_log(suite.common)
    end, _ = await log.end()
    await log.close()

    async def is_there() -> bool:
        return all(
            each.loop.newest is not None
            and each.loop.newest.log_offset == end
            and each.loop.newest.space == each.delta_log.space
            and each.publisher.acknowledged == each.delta_log.last_sequence
            for each in learnings
        )

    await suite.until(is_there)


@pytest.fixture
def registry(tmp_path: Path):
    found = open_registry(registry_url("", tmp_path))
    yield found
    found.close()


async def test_two_learners_share_registry_store_and_index(suite, tmp_path: Path, registry: Registry) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with (
        suite.index() as server,
        _learning(suite, tmp_path, "main", registry, server.address) as first,
        _learning(suite, tmp_path, "other", registry, server.address) as second,
    ):
        await _is_published(suite, first, second)
        for _ in range(3):
            await suite.write(suite.visits(5))
            await _is_published(suite, first, second)
        released = registry.releases(100)
        stats = {space.space: space for space in (await suite.stats(server)).spaces}
        for each in (first, second):
            assert stats[each.delta_log.space].digest == each.lineage.look().digest
    # one sequence of numbers; each follows its own
    assert len({release.number for release in released}) == len(released) >= 8
    by_name = {release.name: release for release in released}
    for release in released:
        assert release.space.startswith(f"{release.lineage}-")
        assert not release.parent or by_name[release.parent].lineage == release.lineage
    assert {release.lineage for release in released} == {"main", "other"}


async def test_the_lineage_that_serves_keeps_the_default_space_until_the_other_is_promoted(
    suite, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_replica, "_REFUSED_S", 0.05)
    await suite.write([*suite.products(), *suite.visits(20)])

    async def is_default(space: str) -> bool:
        return (await suite.stats(server)).active_space == space

    async with suite.index() as server, _learning(suite, tmp_path, "main", registry, server.address) as first:
        await _is_published(suite, first)
        assert await is_default(first.delta_log.space)
        registry.change_plan(PlanChange(stable=first.loop.newest.number))
        async with _learning(suite, tmp_path, "other", registry, server.address) as second:
            await suite.until(lambda: _is_named(registry, "other"))
            # not before the index holds its vectors
            assert second.publisher.has_filled(second.delta_log.space)
            await _is_published(suite, second)
            assert await is_default(first.delta_log.space)
            registry.change_plan(PlanChange(stable=second.loop.newest.number))
            await suite.until(lambda: is_default(second.delta_log.space))
            # and the first, which no longer serves, leaves it there
            first.loop.want_rotation()
            await suite.until(lambda: _has_rotated(first))
            await _is_published(suite, first)
            assert await is_default(second.delta_log.space)


async def _is_named(registry: Registry, lineage: str) -> bool:
    return registry.newest_of(lineage) is not None


async def _has_rotated(learning: Learning) -> bool:
    return len(learning.delta_log.spaces()) > 1


async def test_a_space_that_the_plan_needs_is_not_dropped(suite, tmp_path: Path, registry: Registry) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server, _learning(suite, tmp_path, "main", registry, server.address) as learning:
        await _is_published(suite, learning)
        canary = learning.loop.newest
        registry.change_plan(PlanChange(canary=canary.number))
        spaces = [canary.space]
        for _ in range(3):
            learning.loop.want_rotation()

            async def has_moved() -> bool:
                return learning.loop.newest.space not in spaces

            await suite.until(has_moved)
            spaces.append(learning.loop.newest.space)

        async def is_second_gone() -> bool:
            return spaces[1] not in {space.space for space in (await suite.stats(server)).spaces}

        await suite.until(is_second_gone)
        kept = {space.space for space in (await suite.stats(server)).spaces}
        assert kept == {spaces[0], *spaces[2:]}
        assert registry.release(canary.name) == canary


async def test_vectors_of_a_space_are_had_from_every_shard(suite, tmp_path: Path, registry: Registry) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with (
        suite.index(folder="a", shard="0/2") as one,
        suite.index(folder="b", shard="1/2") as other,
        suite.trainer(index_address=f"{one.address};{other.address}") as stub,
    ):
        status = await suite.learned(stub, pushed=True)
        channels = [[("127.0.0.1:1", open_channel("127.0.0.1:1")), (one.address, open_channel(one.address))]]
        channels.append([(other.address, open_channel(other.address))])
        vectors = await IndexVectors(channels).of(status.space, np.arange(30, dtype=np.uint32))
        with pytest.raises(UnavailableError, match="NOT_FOUND"):
            await IndexVectors(channels).of("no-such-space", np.arange(30, dtype=np.uint32))
        for _, channel in (pair for shard in channels for pair in shard):
            await channel.close()
    assert vectors.ordinals_N.tolist() == list(range(20))
    assert np.isfinite(vectors.vectors_ND).all()
    assert vectors.vectors_ND.any(axis=1).all()


async def test_learning_goes_on_while_the_registry_is_away(
    suite, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server, _learning(suite, tmp_path, "main", registry, server.address) as learning:
        await _is_published(suite, learning)
        before = learning.loop.newest

        def away(*_: object) -> int:
            raise OperationalError("SELECT 1", {}, ConnectionError("it does not answer"))

        with monkeypatch.context() as outage:
            for name in ("reserve_number", "plan", "newest_of"):
                outage.setattr(registry, name, away)
            await suite.write(suite.visits(5))
            log = open_event_log(suite.common)
            end, _ = await log.end()
            await log.close()

            async def is_learned() -> bool:
                return learning.lineage.standing.offset == end

            await suite.until(is_learned)
            assert learning.loop.newest == before
        await _is_published(suite, learning)
        assert learning.loop.newest.parent == before.name


async def test_a_lineage_beside_another_publishes_once_that_one_serves(
    suite, tmp_path: Path, registry: Registry
) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    serving = [""]
    async with (
        suite.index() as server,
        _learning(suite, tmp_path, "other", registry, server.address, beside=True) as learning,
    ):
        learning.loop.serving = lambda: serving[0]

        async def has_learned() -> bool:
            return learning.lineage.standing.slices > 0 and learning.publisher.has_filled(learning.delta_log.space)

        await suite.until(has_learned)
        # a slice later, one would be due
        await suite.write(suite.visits(5))
        slices = learning.lineage.standing.slices

        async def has_gone_on() -> bool:
            return learning.lineage.standing.slices > slices

        await suite.until(has_gone_on)
        assert not registry.releases(1)
        serving[0] = "main"
        await _is_published(suite, learning)
