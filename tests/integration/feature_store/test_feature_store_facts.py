"""GetFacts over gRPC, on a real log."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.rpc_status import faults_of
from headrace.v1 import feature_store_pb2 as pb
from headrace.v1.common_pb2 import ENTITY_KIND_PRODUCT, DatedFact
from headrace.v1.log_pb2 import LoggedDatedFact

START_S = 1_700_000_000


def said(number: int, fact_id: str, start_s: int, end_s: int, **more: object) -> Record:
    fact = DatedFact(
        fact_id=fact_id,
        entity_kind=ENTITY_KIND_PRODUCT,
        entity_id="p3",
        name="promotion.display",
        valid_from=Timestamp(seconds=START_S + start_s),
        valid_until=Timestamp(seconds=START_S + end_s),
        **more,  # type: ignore[arg-type]
    )
    logged = LoggedDatedFact(fact=fact, item_ordinal=3, ingest_time_us=1)
    return Record("dated-fact", "p3", f"f{number}", 1, logged.SerializeToString())


def about(**more: object) -> pb.GetFactsRequest:
    return pb.GetFactsRequest(entity_kind=ENTITY_KIND_PRODUCT, entity_id="p3", **more)  # type: ignore[arg-type]


async def test_facts_are_told_as_of_a_moment_and_an_offset_and_survive_a_restart(
    serve, event_log: SqliteEventLog, event: Callable[..., Record]
) -> None:
    records = [said(1, "a", 0, 100), said(2, "b", 50, 900, store_id="7"), event(1, 1, [3]), said(3, "a", 0, 40)]
    offset = (await event_log.append(records))[-1].offset
    at = Timestamp(seconds=START_S + 60)
    async with serve() as stub:
        now = await stub.GetFacts(about(time=at, min_offset=offset), timeout=10)
    async with serve() as stub:
        then = await stub.GetFacts(about(time=at, as_of_offset=offset - 1, min_offset=offset), timeout=10)
        elsewhere = await stub.GetFacts(about(store_id="8"), timeout=10)
        unknown = pb.GetFactsRequest(entity_kind=ENTITY_KIND_PRODUCT, entity_id="never seen")
        assert not (await stub.GetFacts(unknown, timeout=10)).facts
    assert [fact.fact_id for fact in now.facts] == ["b"]
    assert (now.offset, now.now_us) == (offset, (START_S + 60) * 1_000_000)
    assert [(fact.fact_id, fact.valid_until.seconds - START_S) for fact in then.facts] == [("a", 100), ("b", 900)]
    assert not elsewhere.facts


async def test_every_fault_of_a_question_is_named(serve) -> None:
    async with serve() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetFacts(pb.GetFactsRequest(as_of_offset=-1, min_offset=-1), timeout=10)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as ahead:
            await stub.GetFacts(about(as_of_offset=7), timeout=10)
    assert [fault.field for fault in faults_of(caught.value)] == [
        "entity_kind", "entity_id", "as_of_offset", "min_offset",
    ]  # fmt: skip
    assert [fault.field for fault in faults_of(ahead.value)] == ["as_of_offset"]
