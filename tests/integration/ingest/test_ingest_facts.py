"""Dated facts through a real door: durable, idempotent, every fault named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.runtime.rpc_status import faults_of
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import ENTITY_KIND_PRODUCT, ENTITY_KIND_USER, DatedFact, UserEvent
from headrace.v1.log_pb2 import LoggedDatedFact

ACCEPTED, DUPLICATE, REJECTED = (
    pb.WriteResult.OUTCOME_ACCEPTED,
    pb.WriteResult.OUTCOME_DUPLICATE,
    pb.WriteResult.OUTCOME_REJECTED,
)


def promotion(**fields: Any) -> DatedFact:
    given = {"entity_kind": ENTITY_KIND_PRODUCT, "entity_id": "p", "name": "promotion.display"}
    return DatedFact(**given | fields)


async def write(door: Any, *facts: DatedFact) -> list[pb.WriteResult]:
    return list((await door.stub.WriteFacts(pb.WriteFactsRequest(facts=facts))).results)


async def test_a_fact_is_in_the_log_with_its_id_and_the_ordinal_of_its_product(
    door: Any, event: Callable[..., UserEvent]
) -> None:
    await door.write(event(1, "detail-page-view", "other", "p"))
    membership = DatedFact(entity_kind=ENTITY_KIND_USER, entity_id="ann", name="campaign", campaign_id="c", fact_id="m")
    results = await write(door, promotion(), membership)
    records = await door.records("dated-fact")
    logged = [LoggedDatedFact.FromString(record.payload) for record in records]
    assert [result.outcome for result in results] == [ACCEPTED, ACCEPTED]
    assert [one.fact.fact_id for one in logged] == [result.id for result in results]
    assert (len(results[0].id), results[1].id) == (32, "m")
    assert [record.key for record in records] == ["p", "u:ann"]
    assert logged[0].item_ordinal == 1
    assert not logged[1].HasField("item_ordinal")


async def test_a_repeat_changes_nothing_and_a_correction_is_a_record_of_the_same_fact(door: Any) -> None:
    ended = promotion(valid_until=Timestamp(seconds=5))
    first, repeat, end, again = await write(door, promotion(), promotion(), ended, ended)
    assert [one.outcome for one in (first, repeat, end, again)] == [ACCEPTED, DUPLICATE, ACCEPTED, DUPLICATE]
    assert {first.id} == {repeat.id, end.id, again.id}
    assert repeat.offset == first.offset < end.offset
    raised = promotion(revision=1)
    assert [(one.id, one.outcome) for one in await write(door, raised)] == [(first.id, ACCEPTED)]


async def test_every_fault_of_a_fact_is_named_and_the_others_are_taken(door: Any) -> None:
    bad = DatedFact(
        entity_kind=9,  # type: ignore[arg-type]
        name="Two words",
        number=float("nan"),
        valid_from=Timestamp(seconds=9),
        valid_until=Timestamp(seconds=9),
        source="s" * 129,
        text="t" * 257,
    )
    refused, taken = await write(door, bad, promotion())
    assert (refused.outcome, refused.reason, taken.outcome) == (REJECTED, "missing", ACCEPTED)
    faults = {violation.field: violation.description for violation in refused.violations}
    assert list(faults) == ["entity_id", "entity_kind", "name", "valid_until", "number", "text", "source"]
    assert faults["number"] == "must be finite, got nan"
    assert faults["valid_until"] == "must be after valid_from 1970-01-01T00:00:09Z, got 1970-01-01T00:00:09Z"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "discount"}, "number"),
        ({"name": "discount", "number": 1.5}, "number"),
        ({"name": "campaign"}, "campaign_id"),
        ({"valid_from": Timestamp(seconds=10**13)}, "valid_from"),
        ({"entity_kind": 0}, "entity_kind"),
    ],
)
async def test_facts_that_features_could_not_read_are_refused(door: Any, fields: Any, field: str) -> None:
    (refused,) = await write(door, promotion(**fields))
    assert [violation.field for violation in refused.violations] == [field]


@pytest.mark.parametrize("count", [0, 2_001])
async def test_a_batch_has_1_to_2000_facts(door: Any, count: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await write(door, *[promotion()] * count)
    assert [fault.field for fault in faults_of(caught.value)] == ["facts"]


async def test_a_lost_catalogue_gets_the_ordinals_of_facts_back(backend: Any, open_door: Any) -> None:
    async with open_door() as door:
        await write(door, promotion(entity_id="p1"), promotion(entity_id="p2"))
    with backend.catalogue() as db:
        for table in ("items", "products", "folds"):
            db.exec_driver_sql(f"DELETE FROM {table}")
    async with open_door() as door:
        await write(door, promotion(entity_id="p3"), promotion(entity_id="p1", text="new"))
        logged = [LoggedDatedFact.FromString(record.payload) for record in await door.records("dated-fact")]
    assert [one.item_ordinal for one in logged] == [0, 1, 2, 0]
