"""Deltas reach a real index, whatever happens to it."""

from __future__ import annotations

import shutil
import zlib

import numpy as np
import pytest

from headrace.runtime.channels import open_channel
from headrace.trainer import index_replica
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc, trainer_pb2


async def _equal(suite, stub, server):
    """Status and stats once index and trainer hold the same vectors."""

    async def compared():
        status = await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True))
        stats = await suite.stats(server)
        found = {space.space: space for space in stats.spaces}.get(status.space)
        is_equal = (
            found is not None and found.digest == status.vectors_digest and status.offset == status.log_end_offset
        )
        return (status, stats) if is_equal and status.acknowledged_sequence == status.delta_sequence else None

    return await suite.until(compared)


async def test_the_index_holds_the_vectors_of_the_trainer_row_by_row(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(30)])
    async with suite.index() as server, suite.trainer(index_address=server.address) as stub:
        await suite.learned(stub, pushed=True)
        status, stats = await _equal(suite, stub, server)
        assert stats.active_space == status.space
        assert stats.spaces[0].vectors == status.vectors == 20
        assert stats.spaces[0].log_offset == status.offset
        assert status.push_lag_p50_ms > 0


async def test_an_index_that_comes_later_gets_everything(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(10)])
    async with suite.index() as server:
        port = server.port
    async with suite.trainer(index_address=f"127.0.0.1:{port}") as stub:
        status = await suite.learned(stub)
        assert status.acknowledged_sequence == 0
        async with suite.index(port) as server:
            await _equal(suite, stub, server)


async def test_an_index_that_was_replaced_while_nothing_was_pushed_is_found_by_the_next_push(
    suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a look at the idle index would find it before
    monkeypatch.setattr(index_replica, "_CHECK_S", 600.0)
    await suite.write([*suite.products(), *suite.visits(10)])
    async with suite.index() as server:
        port = server.port
    async with suite.trainer(index_address=f"127.0.0.1:{port}") as stub:
        async with suite.index(port) as server:
            await _equal(suite, stub, server)
        async with suite.index(port) as server:
            await suite.write(suite.visits(10))
            await _equal(suite, stub, server)


async def test_an_index_that_was_restarted_goes_on(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(10)])
    async with suite.index() as server:
        port = server.port
    async with suite.trainer(index_address=f"127.0.0.1:{port}") as stub:
        async with suite.index(port) as server:
            await _equal(suite, stub, server)
        await suite.write(suite.visits(10))
        await suite.learned(stub)
        async with suite.index(port) as server:
            status, stats = await _equal(suite, stub, server)
            assert [space.space for space in stats.spaces] == [status.space]


async def test_an_index_that_was_wiped_while_idle_gets_everything_again(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(10)])
    async with suite.index() as server:
        port = server.port
    async with suite.trainer(index_address=f"127.0.0.1:{port}") as stub:
        async with suite.index(port) as server:
            before, _ = await _equal(suite, stub, server)
        shutil.rmtree(suite.common.data_dir / "index")
        async with suite.index(port) as server:
            after, stats = await _equal(suite, stub, server)
            assert stats.active_space == after.space == before.space


async def test_an_index_that_lost_folded_rows_gets_a_new_space_and_a_release_for_it(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(10)])
    async with suite.index() as server:
        port = server.port
    async with suite.trainer(index_address=f"127.0.0.1:{port}", compact_rows=1) as stub:
        async with suite.index(port) as server:
            before, _ = await _equal(suite, stub, server)
        shutil.rmtree(suite.common.data_dir / "index")
        async with suite.index(port) as server:

            async def has_moved():
                status, stats = await _equal(suite, stub, server)
                release = (await stub.ListReleases(trainer_pb2.ListReleasesRequest(page_size=1))).releases[0]
                is_moved = before.space != status.space == release.space == stats.active_space
                return status if is_moved else None

            after = await suite.until(has_moved)
            assert after.vectors == before.vectors


async def test_an_emptied_trainer_does_not_mix_with_what_an_index_holds(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(10)])
    async with suite.index() as server:
        async with suite.trainer(index_address=server.address) as stub:
            before, _ = await _equal(suite, stub, server)
        shutil.rmtree(suite.common.data_dir / "trainer")
        async with suite.trainer(index_address=server.address) as stub:
            after, _ = await _equal(suite, stub, server)
            assert after.space != before.space

            async def is_active() -> bool:
                return (await suite.stats(server)).active_space == after.space

            await suite.until(is_active)


async def _hold(address: str, space: str, items: int) -> None:
    """Makes a space the active one, with items 0, 1, 2 …"""
    ordinals, values = np.arange(items, dtype="<u4").tobytes(), np.ones((items, 8), "<f4").tobytes()
    batch = index_pb2.ApplyEmbeddingsRequest(
        space=space,
        first_sequence=1,
        item_ordinals=ordinals,
        vectors=common_pb2.Matrix(rows=items, columns=8, values=values),
        checksum=zlib.crc32(ordinals + values),
    )
    async with open_channel(address) as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        await stub.CreateSpace(index_pb2.CreateSpaceRequest(space=space, dimension=8))
        answers = stub.ApplyEmbeddings(iter([batch]))
        assert [answer.applied_sequence async for answer in answers] == [items]
        await stub.ActivateSpace(index_pb2.ActivateSpaceRequest(space=space))


async def test_a_space_takes_over_only_when_it_holds_what_the_active_one_holds(
    suite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_replica, "_REFUSED_S", 0.05)
    await suite.write([*suite.products(20), *suite.visits(10)])
    async with suite.index() as server:
        await _hold(server.address, "before", 40)
        async with suite.trainer(index_address=server.address) as stub:

            async def is_refused() -> bool:
                refused = [one for one in caplog.records if one.getMessage() == "space_not_activated"]
                return any("coverage is 0.5000, must be at least 0.99" in vars(one)["reason"] for one in refused)

            await suite.until(is_refused)
            assert (await suite.stats(server)).active_space == "before"
            await suite.write(suite.products(40)[20:])

            async def is_active() -> bool:
                status = await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest())
                return (await suite.stats(server)).active_space == status.space

            await suite.until(is_active)


async def test_the_trace_of_an_event_travels_with_its_deltas(suite) -> None:
    from headrace.trainer.delta_log import DeltaLog

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await suite.write(suite.visits(3, traceparent=trace))
    async with suite.trainer() as stub:
        await suite.learned(stub)
    log = DeltaLog(suite.common.data_dir / "trainer" / "deltas.db", "main", 8)
    batch = log.batch_after(0)
    log.close()
    assert batch is not None
    assert batch.traceparent.split("-")[1] == trace.split("-")[1]
