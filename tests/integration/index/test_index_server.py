"""The index over a real gRPC server."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import numpy as np
import pytest

from headrace.runtime.rpc_status import faults_of
from headrace.v1 import common_pb2, index_pb2

Index = Any
Serve = Callable[..., AbstractAsyncContextManager[Index]]

E3 = np.eye(3, dtype=np.float32)


def u32(*numbers: int) -> bytes:
    return np.array(numbers, "<u4").tobytes()


def matrix(values: np.ndarray) -> common_pb2.Matrix:
    return common_pb2.Matrix(rows=values.shape[0], columns=values.shape[1], values=values.astype("<f4").tobytes())


async def failed(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_an_acknowledged_vector_is_found_at_once(index: Index) -> None:
    sender = await index.create("s-1", 3)
    [answer] = await index.apply(sender.put(7, [0, 2, 0]))
    assert (answer.space, answer.applied_sequence, answer.gap, answer.log_offset) == ("s-1", 1, False, 3)
    ordinals, scores = await index.search(E3[1:2], 3)
    assert ordinals == [[7]]
    assert scores[0].tolist() == [2.0, -np.inf, -np.inf]


async def test_pipelined_batches_are_answered_in_order(index: Index) -> None:
    sender = await index.create("s-1", 8)
    answers = await index.apply(*(sender.batch(rows=5) for _ in range(60)))
    assert [answer.applied_sequence for answer in answers][-1] == 300
    assert all(answer.applied_sequence >= 5 * place for place, answer in enumerate(answers, 1))
    stats = await index.stats("s-1")
    assert (stats.digest, stats.vectors) == (sender.digest(), len(sender.vectors))


async def test_a_gap_changes_nothing_and_is_answered(index: Index) -> None:
    sender = await index.create("s-1", 4)
    first, missing, last = sender.batch(), sender.batch(), sender.batch()
    answers = await index.apply(first, last)
    assert [(answer.gap, answer.applied_sequence) for answer in answers] == [(False, 20), (True, 20)]
    answers = await index.apply(missing, last)
    assert [(answer.gap, answer.applied_sequence) for answer in answers][-1] == (False, 60)
    assert (await index.stats("s-1")).digest == sender.digest()


async def test_repeats_are_skipped_and_of_an_overlap_only_the_rest_is_applied(index: Index) -> None:
    sender = await index.create("s-1", 2)
    await index.apply(sender.put(1, [1, 0]), sender.put(2, [2, 0]))
    # sequences 1 to 3 with other values for those that are applied already
    from_one = index_pb2.ApplyEmbeddingsRequest()
    from_one.CopyFrom(remade(1, [1, 2, 3], [[9, 9], [9, 9], [3, 0]]))
    [again] = await index.apply(sender.sent[0])
    [overlap] = await index.apply(from_one)
    assert (again.gap, again.applied_sequence) == (False, 2)
    assert (overlap.gap, overlap.applied_sequence) == (False, 3)
    found = await index.stub.GetEmbeddings(index_pb2.GetEmbeddingsRequest(space="s-1"))
    assert np.frombuffer(found.vectors.values, "<f4").reshape(-1, 2).tolist() == [[1, 0], [2, 0], [3, 0]]
    assert np.frombuffer(found.sequences, "<i8").tolist() == [1, 2, 3]
    assert np.frombuffer(found.log_offsets, "<i8").tolist() == [3, 6, 3]
    assert found.applied_sequence == 3


def remade(first_sequence: int, ordinals: list[int], vectors: list[list[float]]) -> index_pb2.ApplyEmbeddingsRequest:
    ids, values = u32(*ordinals), np.array(vectors, "<f4")
    return index_pb2.ApplyEmbeddingsRequest(
        space="s-1",
        first_sequence=first_sequence,
        item_ordinals=ids,
        vectors=matrix(values),
        checksum=zlib.crc32(ids + values.tobytes()),
        log_offset=3,
    )


async def test_a_batch_that_is_wrong_in_many_ways_is_told_all_of_them(index: Index) -> None:
    await index.create("s-1", 2)
    wrong = index_pb2.ApplyEmbeddingsRequest(
        space="s-1",
        first_sequence=0,
        item_ordinals=u32(1, 2),
        vectors=common_pb2.Matrix(rows=2, columns=2, values=np.array([1, np.nan, 1, 1], "<f4").tobytes()),
        tombstones=b"\x02",
        checksum=1,
        log_offset=-1,
    )
    error = await failed(index.apply(wrong))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [fault.field for fault in faults_of(error)] == [
        "first_sequence", "log_offset", "checksum", "vectors", "tombstones", "tombstones",
    ]  # fmt: skip
    assert (await index.stats("s-1")).applied_sequence == 0


@pytest.mark.parametrize(
    ("vectors", "flags", "complaint"),
    [
        ([[0, 0]], b"", "norm above 0"),
        ([[2e4, 0]], b"", "at most 10000"),
        ([[1, 0]], b"\x01", "zeros for a tombstone"),
        ([[1, 0, 0]], b"", "dimension 2"),
    ],
)
async def test_vectors_that_cannot_be_served_are_refused(
    index: Index, vectors: list[list[float]], flags: bytes, complaint: str
) -> None:
    await index.create("s-1", 2)
    batch = remade(1, [1], vectors)
    batch.tombstones = flags
    batch.checksum = zlib.crc32(batch.item_ordinals + batch.vectors.values + flags)
    error = await failed(index.apply(batch))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert complaint in (error.details() or "")


async def test_batches_before_a_refused_one_are_answered(index: Index) -> None:
    sender = await index.create("s-1", 2)
    good, bad = sender.batch(), remade(21, [1], [[0, 0]])

    async def requests() -> AsyncIterator[index_pb2.ApplyEmbeddingsRequest]:
        yield good
        yield bad
        yield good

    call = index.stub.ApplyEmbeddings(requests())
    assert (await call.read()).applied_sequence == 20
    assert (await failed(call.read())).code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_an_empty_batch_moves_the_log_offset_alone(index: Index) -> None:
    sender = await index.create("s-1", 2)
    await index.apply(sender.put(1, [1, 0]))
    [answer] = await index.apply(index_pb2.ApplyEmbeddingsRequest(space="s-1", first_sequence=2, log_offset=99))
    assert (answer.applied_sequence, answer.log_offset, answer.gap) == (1, 99, False)


async def test_a_search_that_names_a_sequence_waits_for_it(index: Index) -> None:
    sender = await index.create("s-1", 3)
    batch = sender.put(5, [1, 0, 0])
    search = asyncio.create_task(index.search(E3[:1], 1, min_sequence=1))
    # the stats call comes back after the search has arrived on the same connection
    await index.stats("s-1")
    assert not search.done()
    await index.apply(batch)
    assert (await search)[0] == [[5]]


async def test_a_sequence_that_does_not_come_ends_with_the_deadline(index: Index) -> None:
    await index.create("s-1", 3)
    query = index_pb2.IndexServiceSearchRequest(queries=matrix(E3[:1]), k=1, min_sequence=1)
    error = await failed(index.stub.Search(query, timeout=0.05))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_without_a_deadline_the_wait_has_a_limit_of_its_own(serve: Serve) -> None:
    async with serve(max_wait_s=0.05) as index:
        await index.create("s-1", 3)
        error = await failed(index.search(E3[:1], 1, min_sequence=4))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "at sequence 0, not yet at 4" in (error.details() or "")


async def test_filters_hold_exactly(index: Index) -> None:
    sender = await index.create("s-1", 2)
    await index.apply(*(sender.put(o, [o + 1, 0]) for o in range(30)))
    allowed = np.zeros(30, np.bool_)
    allowed[[3, 10, 20, 29]] = True
    ordinals, _ = await index.search(
        np.array([[1, 0]]),
        5,
        allow_bitmap=np.packbits(allowed, bitorder="little").tobytes(),
        deny_ordinals=u32(29, 4_000_000),
    )
    assert ordinals == [[20, 10, 3]]


async def test_a_search_by_items_uses_their_vectors_and_finds_nothing_for_strangers(index: Index) -> None:
    sender = await index.create("s-1", 3)
    await index.apply(*(sender.put(o, row.tolist()) for o, row in enumerate(E3)))
    query = index_pb2.IndexServiceSearchRequest(query_item_ordinals=u32(2, 77, 0, 2), k=1)
    answer = await index.stub.Search(query)
    assert np.frombuffer(answer.counts, "<u4").tolist() == [1, 0, 1, 1]
    assert np.frombuffer(answer.item_ordinals, "<u4").tolist() == [2, 0xFFFFFFFF, 0, 2]
    nobody = await index.stub.Search(index_pb2.IndexServiceSearchRequest(query_item_ordinals=u32(77), k=1))
    assert np.frombuffer(nobody.counts, "<u4").tolist() == [0]


async def test_a_search_that_is_wrong_in_many_ways_is_told_all_of_them(index: Index) -> None:
    query = index_pb2.IndexServiceSearchRequest(
        space="No Such Name",
        queries=common_pb2.Matrix(rows=1, columns=2, values=np.array([np.inf, 1], "<f4").tobytes()),
        query_item_ordinals=b"\x00",
        k=10_001,
        allow_bitmap=b"\xff" * (3 << 20),
        deny_ordinals=b"\x00\x00",
        min_sequence=-1,
    )
    error = await failed(index.stub.Search(query))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert {fault.field for fault in faults_of(error)} == {
        "space", "queries", "query_item_ordinals", "k", "allow_bitmap", "deny_ordinals", "min_sequence",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (index_pb2.IndexServiceSearchRequest(k=1), "queries"),
        (index_pb2.IndexServiceSearchRequest(queries=common_pb2.Matrix(), k=1), "queries.rows"),
        (index_pb2.IndexServiceSearchRequest(queries=matrix(E3[:1]), k=0), "k"),
        (index_pb2.IndexServiceSearchRequest(queries=matrix(E3[:1] * 1e6), k=1), "queries"),
        (index_pb2.IndexServiceSearchRequest(queries=matrix(np.ones((101, 3))), k=10_000), "k"),
        (index_pb2.IndexServiceSearchRequest(query_item_ordinals=u32(1 << 30), k=1), "query_item_ordinals"),
        (
            index_pb2.IndexServiceSearchRequest(queries=common_pb2.Matrix(rows=2, columns=3, values=b"1234"), k=1),
            "queries",
        ),
    ],
)
async def test_a_search_outside_the_limits_is_refused(
    index: Index, query: index_pb2.IndexServiceSearchRequest, field: str
) -> None:
    error = await failed(index.stub.Search(query))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in [fault.field for fault in faults_of(error)]


async def test_a_query_for_a_space_that_is_not_there_or_not_of_its_dimension_is_refused(index: Index) -> None:
    error = await failed(index.search(E3[:1], 1))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no space was named and none is active")
    await index.create("s-1", 4)
    assert (await failed(index.search(E3[:1], 1, space="s-2"))).code() == grpc.StatusCode.NOT_FOUND
    assert (await failed(index.search(E3[:1], 1))).code() == grpc.StatusCode.FAILED_PRECONDITION
    assert (await failed(index.apply(remade(1, [1], [[1, 1]])))).code() == grpc.StatusCode.INVALID_ARGUMENT
    batch = remade(1, [1], [[1, 1]])
    batch.space = "s-2"
    assert (await failed(index.apply(batch))).code() == grpc.StatusCode.NOT_FOUND


async def test_spaces_live_side_by_side_until_one_is_dropped(index: Index) -> None:
    old = await index.create("old", 2)
    new = await index.create("new", 3, activate=False)
    await index.apply(old.put(1, [1, 0]))
    await index.apply(new.put(2, [1, 0, 0]))
    assert (await index.search(np.array([[1, 0]]), 5))[0] == [[1]]
    assert (await index.search(E3[:1], 5, space="new"))[0] == [[2]]
    refused = await failed(index.stub.DropSpace(index_pb2.DropSpaceRequest(space="old")))
    assert refused.code() == grpc.StatusCode.FAILED_PRECONDITION
    answer = await index.stub.ActivateSpace(index_pb2.ActivateSpaceRequest(space="new"))
    assert answer.previous_space == "old"
    for _ in range(2):
        await index.stub.DropSpace(index_pb2.DropSpaceRequest(space="old"))
    assert (await failed(index.search(np.array([[1, 0]]), 1, space="old"))).code() == grpc.StatusCode.NOT_FOUND
    assert (await index.search(E3[:1], 5))[0] == [[2]]


async def test_a_space_is_activated_once_it_fulfils_the_conditions(index: Index) -> None:
    old = await index.create("old", 3)
    new = await index.create("new", 3, activate=False)
    await index.apply(*(old.put(o, row.tolist()) for o, row in enumerate(E3)))
    await index.apply(*(new.put(o, row.tolist()) for o, row in enumerate(E3[:2])))
    assert [(await index.stats(space)).coverage for space in ("old", "new")] == [1, 2 / 3]
    request = index_pb2.ActivateSpaceRequest(space="new", min_coverage=0.9, min_recall=1, min_sequence=2)
    refused = await failed(index.stub.ActivateSpace(request))
    assert refused.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert refused.details() == "space 'new' is not activated: coverage is 0.6667, must be at least 0.9"
    assert (await index.stats("old")).active
    request.gone_ordinals = u32(2)
    answer = await index.stub.ActivateSpace(request)
    assert (answer.previous_space, answer.coverage, answer.recall) == ("old", 1, 1)
    assert (await index.stats("new")).active
    plain = await index.stub.ActivateSpace(index_pb2.ActivateSpaceRequest(space="old"))
    assert not plain.HasField("coverage")
    assert not plain.HasField("recall")


async def test_conditions_that_make_no_sense_are_told_together(index: Index) -> None:
    request = index_pb2.ActivateSpaceRequest(
        space="s-1", min_coverage=1.1, min_recall=float("nan"), min_sequence=-1, gone_ordinals=b"abc"
    )
    error = await failed(index.stub.ActivateSpace(request))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    fields = ["min_coverage", "min_recall", "min_sequence", "gone_ordinals"]
    assert [fault.field for fault in faults_of(error)] == fields


async def test_making_a_space_again_is_fine_unless_it_is_of_another_dimension(index: Index) -> None:
    sender = await index.create("s-1", 2)
    await index.apply(sender.put(1, [1, 0]))
    await index.create("s-1", 2)
    assert (await index.stats("s-1")).vectors == 1
    error = await failed(index.create("s-1", 3))
    assert error.code() == grpc.StatusCode.ALREADY_EXISTS
    missing = await failed(index.stub.ActivateSpace(index_pb2.ActivateSpaceRequest(space="s-2")))
    assert missing.code() == grpc.StatusCode.NOT_FOUND


async def test_a_bad_name_and_dimension_are_told_together(index: Index) -> None:
    error = await failed(index.stub.CreateSpace(index_pb2.CreateSpaceRequest(space="A b", dimension=5000)))
    assert [fault.field for fault in faults_of(error)] == ["space", "dimension"]


async def test_vectors_are_given_in_the_order_asked_without_those_that_are_not_there(index: Index) -> None:
    sender = await index.create("s-1", 3)
    await index.apply(*(sender.put(o, row.tolist()) for o, row in enumerate(E3)))
    found = await index.stub.GetEmbeddings(index_pb2.GetEmbeddingsRequest(item_ordinals=u32(2, 9, 0)))
    assert np.frombuffer(found.item_ordinals, "<u4").tolist() == [2, 0]
    assert np.frombuffer(found.vectors.values, "<f4").reshape(2, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    error = await failed(index.stub.GetEmbeddings(index_pb2.GetEmbeddingsRequest(item_ordinals=bytes(4 * 10_001))))
    assert [fault.field for fault in faults_of(error)] == ["item_ordinals"]


async def test_more_vectors_than_a_message_may_have_are_not_given_at_once(serve: Serve) -> None:
    async with serve(max_message_bytes=1 << 16) as index:
        sender = await index.create("s-1", 64)
        await index.apply(*(sender.batch(rows=100, items=1000, deletes=0) for _ in range(4)))
        error = await failed(index.stub.GetEmbeddings(index_pb2.GetEmbeddingsRequest()))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_restart_brings_everything_back(serve: Serve) -> None:
    async with serve() as index:
        sender = await index.create("s-1", 8)
        other = await index.create("s-2", 4, activate=False)
        await index.apply(*(sender.batch() for _ in range(10)))
        await index.apply(other.batch())
    async with serve() as index:
        stats = await index.stats("s-1")
        assert (stats.digest, stats.applied_sequence, stats.active) == (sender.digest(), 200, True)
        assert stats.log_offset == 181 * 3
        assert (await index.stats("s-2")).digest == other.digest()
        [answer] = await index.apply(sender.batch())
        assert answer.applied_sequence == 220


async def test_the_stats_say_what_serves_and_why(index: Index) -> None:
    sender = await index.create("s-1", 8)
    await index.apply(sender.batch())
    answer = await index.stub.GetIndexStats(index_pb2.GetIndexStatsRequest(with_digest=True))
    assert answer.backend.startswith("faiss 1.")
    assert answer.active_space == "s-1"
    assert answer.apply_p99_ms >= answer.apply_p50_ms > 0
    assert answer.memory_bytes > 8 * 4 * 20
    assert answer.spaces[0].segment_kind in ("compact-cpu", "flat-cpu")
    assert answer.spaces[0].segment_reason.startswith("cpu: asked for; ")


async def test_a_share_of_the_answers_is_checked(serve: Serve) -> None:
    async with serve(check_share=0.5) as index:
        sender = await index.create("s-1", 8)
        await index.apply(sender.batch(rows=300))
        checked = 0
        while checked < 3:
            await index.search(np.ones((1, 8), np.float32), 10)
            told = await index.stub.GetIndexStats(index_pb2.GetIndexStatsRequest())
            if told.spaces[0].segment_kind != "compact-cpu":
                pytest.skip("the scan is not compiled here")
            checked = told.checked_queries
        assert told.checked_recall == 1.0


async def test_a_follower_gets_a_snapshot_and_then_every_change(index: Index) -> None:
    sender = await index.create("s-1", 4)
    await index.apply(sender.batch(rows=150))
    follower = index.stub.WatchEmbeddings(index_pb2.WatchEmbeddingsRequest())
    copy: dict[int, list[float]] = {}
    part = await follower.read()
    while not part.snapshot_end:
        assert part.snapshot
        assert part.applied_sequence == 150
        take(part, copy)
        part = await follower.read()
    assert copy == held(sender)
    await index.apply(*(sender.batch() for _ in range(5)))
    await index.apply(sender.put(3, [1, 1, 1, 1]))
    while part.applied_sequence < sender.sequence:
        part = await follower.read()
        assert not part.snapshot
        take(part, copy)
    assert copy == held(sender)
    assert part.log_offset == sender.sequence * 3
    follower.cancel()


def take(part: index_pb2.WatchEmbeddingsResponse, copy: dict[int, list[float]]) -> None:
    ordinals = np.frombuffer(part.item_ordinals, "<u4").tolist()
    vectors = np.frombuffer(part.vectors.values, "<f4").reshape(part.vectors.rows, part.vectors.columns).tolist()
    gone = part.tombstones or bytes(len(ordinals))
    for ordinal, vector, deleted in zip(ordinals, vectors, gone, strict=True):
        if deleted:
            copy.pop(ordinal, None)
        else:
            copy[ordinal] = vector


def held(sender: Any) -> dict[int, list[float]]:
    return {ordinal: vector.tolist() for ordinal, vector in sender.vectors.items()}


async def test_a_follower_of_a_dropped_space_is_told(index: Index) -> None:
    await index.create("s-1", 4, activate=False)
    follower = index.stub.WatchEmbeddings(index_pb2.WatchEmbeddingsRequest(space="s-1"))
    assert (await follower.read()).snapshot_end
    await index.stub.DropSpace(index_pb2.DropSpaceRequest(space="s-1"))
    error = await failed(follower.read())
    assert error.code() == grpc.StatusCode.NOT_FOUND


async def test_a_search_waiting_for_a_dropped_space_is_told(index: Index) -> None:
    await index.create("s-1", 3, activate=False)
    search = asyncio.create_task(index.search(E3[:1], 1, space="s-1", min_sequence=1))
    await index.stats("s-1")
    await index.stub.DropSpace(index_pb2.DropSpaceRequest(space="s-1"))
    assert (await failed(search)).code() == grpc.StatusCode.NOT_FOUND


async def test_more_searches_than_may_wait_are_refused_early(serve: Serve) -> None:
    async with serve(max_searches=1, search_threads=1) as index:
        sender = await index.create("s-1", 64)
        await index.apply(*(sender.batch(rows=4000, items=100_000, deletes=0) for _ in range(5)))
        queries = np.random.default_rng(0).standard_normal((50, 64))
        answers = await asyncio.gather(*(index.search(queries, 100) for _ in range(8)), return_exceptions=True)
    errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert 1 <= len(errors) < 8
    assert {error.code() for error in errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_two_processes_cannot_have_one_folder(serve: Serve) -> None:
    async with serve():
        with pytest.raises(Exception, match="in use by another index process"):
            async with serve():
                pass


async def test_large_and_small_batches_of_one_stream_keep_their_order(index: Index) -> None:
    sender = await index.create("s-1", 64)
    sizes = [5000, 3, 2000, 1, 1, 4000, 2]
    answers = await index.apply(*(sender.batch(rows=rows, items=9000) for rows in sizes))
    assert not any(answer.gap for answer in answers)
    assert (await index.stats("s-1")).digest == sender.digest()


async def test_two_streams_cannot_apply_a_sequence_twice(index: Index) -> None:
    sender = await index.create("s-1", 4)
    batches = [sender.batch() for _ in range(30)]
    answers = await asyncio.gather(index.apply(*batches), index.apply(*batches))
    assert {answers[0][-1].applied_sequence, answers[1][-1].applied_sequence} == {600}
    assert (await index.stats("s-1")).digest == sender.digest()


async def test_a_sender_that_goes_away_leaves_the_index_serving(index: Index) -> None:
    sender = await index.create("s-1", 4)
    call = index.stub.ApplyEmbeddings()
    await call.write(sender.batch())
    assert (await call.read()).applied_sequence == 20
    call.cancel()
    [answer] = await index.apply(sender.batch())
    assert answer.applied_sequence == 40
