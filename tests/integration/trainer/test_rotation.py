"""Vectors move to a new space while people are answered: nothing mixed, nothing lost, nothing begun twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from headrace.ranker.__main__ import compose as compose_ranker
from headrace.ranker.settings import RankerSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.serving import running
from headrace.trainer import __main__ as trainer_main
from headrace.trainer import learner_role
from headrace.trainer.loop import LearningLoop
from headrace.v1 import ranker_pb2, ranker_pb2_grpc, trainer_pb2, trainer_pb2_grpc

_PATIENT = {"state_budget_s": 5.0, "search_budget_s": 5.0, "score_budget_s": 5.0, "default_deadline_s": 20.0}


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> list[LearningLoop]:
    """The learning loops of the trainers that are started, oldest first."""
    made: list[LearningLoop] = []

    class Remembered(LearningLoop):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(learner_role, "LearningLoop", Remembered)
    return made


async def _newest(stub) -> trainer_pb2.Release:
    return (await stub.ListReleases(trainer_pb2.ListReleasesRequest(page_size=1))).releases[0]


async def _rotated(suite, stub, server, loop: LearningLoop) -> trainer_pb2.Release:
    """Asks for a new space; its first release, once it is there and the index holds the trainer's vectors."""
    before = await _newest(stub)
    loop.want_rotation()

    async def has_moved() -> trainer_pb2.Release | None:
        newest = await _newest(stub)
        status = await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True))
        stats = await suite.stats(server)
        found = {space.space: space for space in stats.spaces}.get(status.space)
        is_there = newest.space == status.space == stats.active_space != before.space
        return newest if is_there and found and found.digest == status.vectors_digest else None

    return await suite.until(has_moved)


async def _spaces(suite, server) -> set[str]:
    return {space.space for space in (await suite.stats(server)).spaces}


async def test_two_spaces_are_kept_and_older_ones_dropped_with_their_releases(suite, loops) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server, suite.trainer(index_address=server.address) as stub:
        await suite.learned(stub, pushed=True)
        first = await _newest(stub)
        second = await _rotated(suite, stub, server, loops[0])
        # what older releases need is there to go back to
        assert await _spaces(suite, server) == {first.space, second.space}
        assert second.parent == first.release
        third = await _rotated(suite, stub, server, loops[0])

        async def is_first_gone() -> bool:
            return await _spaces(suite, server) == {second.space, third.space}

        await suite.until(is_first_gone)
        listed = (await stub.ListReleases(trainer_pb2.ListReleasesRequest())).releases
        assert {release.space for release in listed} == {second.space, third.space}


async def test_spaces_are_begun_and_dropped_in_every_shard_and_replica(suite, loops) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with (
        suite.index(folder="a", shard="0/2") as first,
        suite.index(folder="b", shard="0/2") as second,
        suite.index(folder="c", shard="1/2") as other,
        suite.trainer(index_address=f"{first.address},{second.address};{other.address}") as stub,
    ):
        await suite.learned(stub, pushed=True)
        oldest = newest = await _newest(stub)
        for _ in range(2):
            before = newest
            loops[0].want_rotation()
            await suite.until(lambda before=before: _has_left(stub, before.space))
            newest = await _newest(stub)
            # a release waits for all of them
            stats = [await suite.stats(server) for server in (first, second, other)]
            assert {one.active_space for one in stats} == {newest.space}

        async def is_oldest_gone() -> bool:
            return not any([oldest.space in await _spaces(suite, server) for server in (first, second, other)])

        await suite.until(is_oldest_gone)
        status = await suite.learned(stub, pushed=True)
        stats = [await suite.stats(server) for server in (first, second, other)]
        spaces = [next(space for space in one.spaces if space.space == newest.space) for one in stats]
        assert {space.applied_sequence for space in spaces} == {status.delta_sequence}
        assert spaces[0].digest == spaces[1].digest
        assert spaces[0].vectors + spaces[2].vectors == status.vectors


async def _has_left(stub, space: str) -> bool:
    return (await _newest(stub)).space != space


async def test_a_shard_under_another_ones_address_is_not_pushed_to(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(5)])
    async with suite.index(shard="1/2") as server, suite.trainer(index_address=server.address) as stub:
        status = await suite.learned(stub)
        assert status.acknowledged_sequence == 0
        assert not (await suite.stats(server)).spaces


async def test_deltas_go_on_in_the_new_space(suite, loops) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server, suite.trainer(index_address=server.address) as stub:
        before = await suite.learned(stub, pushed=True)
        release = await _rotated(suite, stub, server, loops[0])
        await suite.write(suite.visits(20))
        after = await suite.learned(stub, pushed=True)
        stats = {space.space: space for space in (await suite.stats(server)).spaces}
        assert stats[release.space].digest == after.vectors_digest
        assert stats[release.space].applied_sequence == after.delta_sequence
        # the space of older releases stays as they know it
        assert stats[before.space].digest == before.vectors_digest


async def test_a_release_of_a_new_space_waits_for_the_index(suite, loops) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server:
        port = server.port
    async with suite.trainer(index_address=f"127.0.0.1:{port}", publish_every_s=0.05) as stub:
        async with suite.index(port):
            before = await suite.learned(stub, pushed=True)
        loops[0].want_rotation()

        async def has_begun() -> bool:
            return (await suite.learned(stub)).space != before.space

        await suite.until(has_begun)
        await suite.write(suite.visits(5))
        await suite.learned(stub)
        assert (await _newest(stub)).space == before.space
        async with suite.index(port):

            async def is_released() -> bool:
                return (await _newest(stub)).space != before.space

            await suite.until(is_released)


async def test_a_second_wish_while_a_space_is_being_filled_is_met_by_the_same(suite, loops) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server, suite.trainer(index_address=server.address) as stub:
        await suite.learned(stub, pushed=True)
        loops[0].want_rotation()
        loops[0].want_rotation()
        await _rotated(suite, stub, server, loops[0])
        assert len(_begun(suite.common.data_dir)) == 2


class Person:
    """Asks for recommendations without a pause, and notes who answered."""

    def __init__(self, ranker: ranker_pb2_grpc.RankerServiceStub) -> None:
        self._ranker = ranker
        # release and space of every answer, in order
        self.answers: list[tuple[str, str]] = []
        self.degraded: set[str] = set()
        self.has_enough = False

    async def ask(self) -> None:
        """Until there is enough; a call that is cancelled just when it is answered goes on."""
        while not self.has_enough:
            for config in ("home", "similar-items"):
                request = ranker_pb2.RecommendRequest(serving_config=config, user_id="ann", product_ids=["p3"])
                response = await self._ranker.Recommend(request, timeout=20)
                assert response.results
                self.answers.append((response.info.release, response.info.space))
                self.degraded.update(response.info.degraded_reasons)


@asynccontextmanager
async def _ranker(
    suite, index: str, feature_store: str, trainer: str
) -> AsyncIterator[ranker_pb2_grpc.RankerServiceStub]:
    peers = {"index_address": index, "feature_store_address": feature_store, "trainer_address": trainer}
    settings = RankerSettings(port=0, drain_s=0, retry_s=0.05, **_PATIENT, **peers)
    async with compose_ranker(settings, suite.common) as parts, running(parts, settings) as server:
        channel = open_channel(server.address)
        yield ranker_pb2_grpc.RankerServiceStub(channel)
        await channel.close()


@asynccontextmanager
async def _trainer(suite, **changed: object) -> AsyncIterator[tuple[str, trainer_pb2_grpc.TrainerServiceStub]]:
    settings = suite.settings(**changed)
    async with (
        trainer_main.compose(settings, suite.common, rules=suite.rules()) as parts,
        running(parts, settings) as server,
    ):
        channel = open_channel(server.address)
        yield server.address, trainer_pb2_grpc.TrainerServiceStub(channel)
        await channel.close()


async def _watched(plans, spaces: dict[str, str]) -> None:
    """Notes which space each release names, until the call is cancelled."""
    async for plan in plans:
        if plan.stable.release:
            spaces[plan.stable.release] = plan.stable.space


async def test_no_answer_mixes_two_spaces_while_vectors_move(suite, loops) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    spaces: dict[str, str] = {}
    async with (
        suite.index() as index,
        suite.feature_store() as store,
        _trainer(suite, index_address=index.address, feature_store_address=store.address) as (trainer, stub),
        _ranker(suite, index.address, store.address, trainer) as ranker,
    ):
        plans = stub.WatchServingPlan(trainer_pb2.WatchServingPlanRequest())
        watch = asyncio.create_task(_watched(plans, spaces))
        status = ranker_pb2.GetRankerStatusRequest()

        async def is_served() -> bool:
            found = await ranker.GetRankerStatus(status)
            return bool(found.release) and found.items == 20

        await suite.until(is_served)
        person = Person(ranker)
        asking = asyncio.create_task(person.ask())
        for _ in range(3):
            release = await _rotated(suite, stub, index, loops[0])
            await suite.write(suite.visits(3))

            async def is_cut_over(space: str = release.space) -> bool:
                assert not asking.done(), asking.exception()
                return person.answers[-1][1] == space

            await suite.until(is_cut_over)
        person.has_enough = True
        await asking
        plans.cancel()
        await asyncio.wait([watch])
    assert all(spaces[release] == space for release, space in person.answers)
    assert len({space for _, space in person.answers}) == 4
    # an answer by an older release after a newer one would be a step back
    assert [release for release, _ in person.answers] == sorted(release for release, _ in person.answers)
    assert person.degraded == set()


def _begun(folder: Path) -> list[tuple[str, str]]:
    """Every space with why it was begun."""
    db = sqlite3.connect(folder / "trainer" / "deltas.db")
    found = db.execute("SELECT name, reason FROM spaces ORDER BY number").fetchall()
    db.close()
    return found


def _start(folder: Path, index: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
        "HEADRACE_DATA_DIR": str(folder),
        "HEADRACE_TRAINER_PORT": "0",
        "HEADRACE_TRAINER_INDEX_ADDRESS": index,
        "HEADRACE_TRAINER_FEATURE_STORE_ADDRESS": "127.0.0.1:1",
        "HEADRACE_TRAINER_DIMENSION": "8",
        "HEADRACE_TRAINER_MAX_LENGTH": "8",
        "HEADRACE_TRAINER_TEXT_WIDTH": "8",
        "HEADRACE_TRAINER_UNIFORM_NEGATIVES": "16",
        "HEADRACE_TRAINER_POPULAR_NEGATIVES": "16",
        "HEADRACE_TRAINER_PUBLISH_EVERY_S": "3600",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, "-m", "headrace.trainer"], env=environment, stderr=subprocess.DEVNULL)


async def _killed_once_begun(suite, process: subprocess.Popen[bytes]) -> None:
    async def has_begun() -> bool:
        assert process.poll() is None, "the trainer died by itself"
        return len(_begun(suite.common.data_dir)) == 2

    await suite.until(has_begun)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("is_index_away", [True, False])
async def test_a_rotation_that_was_killed_is_finished_and_not_begun_again(suite, is_index_away: bool) -> None:
    folder = suite.common.data_dir
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server, suite.trainer(index_address=server.address) as stub:
        before = await suite.learned(stub, pushed=True)
    # as if that trainer had made vectors of another form
    db = sqlite3.connect(folder / "trainer" / "deltas.db")
    db.execute("UPDATE spaces SET form = 'any length'")
    db.commit()
    db.close()
    async with suite.index() as server:
        address = "127.0.0.1:1" if is_index_away else server.address
        await _killed_once_begun(suite, _start(folder, address))
        async with suite.trainer(index_address=server.address) as stub:

            async def is_released() -> bool:
                return (await _newest(stub)).space != before.space

            await suite.until(is_released)
            after = await suite.learned(stub, pushed=True)
            stats = {space.space: space.digest for space in (await suite.stats(server)).spaces}
    assert _begun(folder) == [(before.space, ""), (after.space, "another form")]
    assert stats == {before.space: before.vectors_digest, after.space: after.vectors_digest}
    assert (after.offset, after.slices) == (before.offset, before.slices)


_LOST_AS_SERVED, _LOST_ITS_QUERIES = [True, False, True], [True, True, False]


async def _measured(suite, loop: LearningLoop, release: str, outcome: list[bool]) -> None:
    """As if the newest release had lost everything, in one way or the other."""

    async def is_followed() -> bool:
        # a release is listed a moment before it is held against what comes
        return loop.newest is not None and loop.newest.name == release

    await suite.until(is_followed)
    loop._compared._hits_P3 = np.array([outcome] * 50)


async def test_a_release_follows_at_once_when_the_served_one_is_left_behind(suite, loops) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server, suite.trainer(index_address=server.address) as stub:
        await suite.learned(stub, pushed=True)
        before = await _newest(stub)
        await _measured(suite, loops[0], before.release, _LOST_AS_SERVED)
        await suite.write(suite.visits(1))

        async def has_followed() -> bool:
            return (await _newest(stub)).parent == before.release

        await suite.until(has_followed)
        newest = await _newest(stub)
    assert (newest.space, newest.metrics["skew"]) == (before.space, 0.0)
    assert "skew" not in before.metrics


async def test_a_release_that_is_not_comparable_gets_a_space_of_its_own(suite, loops) -> None:
    await suite.write([*suite.products(), *suite.visits(20)])
    async with suite.index() as server, suite.trainer(index_address=server.address) as stub:
        await suite.learned(stub, pushed=True)
        before = await _newest(stub)
        await _measured(suite, loops[0], before.release, _LOST_ITS_QUERIES)
        loops[0].want_release()

        async def has_followed() -> bool:
            return (await _newest(stub)).parent == before.release

        await suite.until(has_followed)
        newest = await _newest(stub)
        assert newest.space != before.space
        assert newest.metrics["comparability"] == 0.0
        assert _begun(suite.common.data_dir)[1] == (newest.space, "not comparable")
