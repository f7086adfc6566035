"""The door forgets people: what leaves the log and the dead letters, what stays, and what the receipt says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from headrace.ingest.__main__ import compose
from headrace.ingest.receipts import Signer, checked
from headrace.ingest.settings import IngestSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.clock import now_us
from headrace.runtime.erasures import DONE, TOMBSTONE, done, erasure_of
from headrace.runtime.errors import InvalidRequestError
from headrace.runtime.eventlog import EventLog
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.privacy import Privacy, open_privacy
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import DatedFact, EntityKind, UserEvent
from headrace.v1.ingest_pb2_grpc import IngestServiceStub
from headrace.v1.log_pb2 import IdentityChange

Event = Callable[..., UserEvent]
# nobody but the door itself
ALONE = {"forget_consumers": "", "forget_settle_s": 0.0}


async def forget(door: Any, **request: object) -> dict[str, Any]:
    answer = await door.stub.ForgetUser(pb.ForgetUserRequest(**request))
    receipt: dict[str, Any] = json.loads(answer.receipt)
    assert answer.complete is (receipt["pending"] == {})
    return receipt


async def whose(door: Any) -> list[str]:
    """The key of each event that is still in the log."""
    return [record.key for record in await door.records()]


@pytest.fixture
def privacy(backend: Any) -> Privacy:
    return open_privacy(backend.common)


async def test_a_person_leaves_the_log_with_the_devices_that_nobody_else_used(
    open_door: Any, event: Event, privacy: Privacy
) -> None:
    async with open_door(**ALONE) as door:
        await door.write(
            event(1, visitor_id="phone"),
            event(2, visitor_id="phone", user_id="ann"),
            event(3, visitor_id="kiosk"),
            event(4, visitor_id="kiosk", user_id="ann"),
            event(5, visitor_id="kiosk", user_id="bob"),
            event(6, visitor_id="phones"),
        )
        receipt = await forget(door, user_id="ann")

        assert await whose(door) == ["v:kiosk", "u:bob", "v:phones"]
        assert receipt["erased"]["log"] == {"records": 3, "devices_blanked": 0}
        assert receipt["erased_people"] == [privacy.pseudonym(key) for key in ("u:ann", "v:phone")]
        assert receipt["shared_devices_kept"] == [privacy.pseudonym("v:kiosk")]
        (record,) = await door.records(TOMBSTONE)
        erasure = erasure_of(record)
        assert erasure.offset == receipt["tombstone_offset"] == 7
        assert [erasure.names(privacy, key) for key in ("u:ann", "v:phone", "v:kiosk")] == [True, True, False]


async def test_a_shared_device_goes_when_that_is_asked_for_and_is_blank_in_what_others_did(
    open_door: Any, event: Event
) -> None:
    async with open_door(**ALONE) as door:
        await door.write(
            event(1, visitor_id="kiosk"),
            event(2, visitor_id="kiosk", user_id="ann"),
            event(3, visitor_id="kiosk", user_id="bob"),
        )
        receipt = await forget(door, user_id="ann", include_shared_devices=True)

        (left,) = await door.logged()
        assert (left.user_key, left.event.visitor_id, left.event.user_id) == ("u:bob", "", "bob")
        assert receipt["erased"]["log"] == {"records": 2, "devices_blanked": 1}
        # an old event of the other one that comes again is the same event, still without the device
        (again, late) = await door.write(
            event(3, visitor_id="kiosk", user_id="bob"), event(4, visitor_id="kiosk", user_id="bob")
        )
        assert (again.outcome, late.outcome) == (pb.WriteResult.OUTCOME_DUPLICATE, pb.WriteResult.OUTCOME_ACCEPTED)
        assert [logged.event.visitor_id for logged in await door.logged()] == ["", ""]


async def test_a_device_that_was_joined_goes_too_and_so_do_facts_about_the_person(open_door: Any, event: Event) -> None:
    async with open_door(**ALONE) as door:
        await door.write(event(1, visitor_id="tablet"), event(2, user_id="ann"))
        join = pb.ChangeIdentityRequest.CHANGE_JOIN
        await door.stub.ChangeIdentity(pb.ChangeIdentityRequest(visitor_id="tablet", user_id="ann", change=join))
        fact = DatedFact(
            entity_kind=EntityKind.ENTITY_KIND_USER, entity_id="ann", name="campaign", campaign_id="spring"
        )
        (written,) = (await door.stub.WriteFacts(pb.WriteFactsRequest(facts=[fact]))).results
        assert written.outcome == pb.WriteResult.OUTCOME_ACCEPTED, written
        receipt = await forget(door, user_id="ann")
        assert receipt["erased"]["log"] == {"records": 4, "devices_blanked": 0}
        assert [record.kind for record in await door.log.read(0)] == ["erased"] * 4 + [TOMBSTONE]


async def test_an_erased_device_is_blank_in_changes_of_whose_it_was(open_door: Any, event: Event) -> None:
    async with open_door(**ALONE) as door:
        split = pb.ChangeIdentityRequest.CHANGE_SPLIT
        await door.write(event(1, visitor_id="kiosk", user_id="ann"))
        await door.stub.ChangeIdentity(pb.ChangeIdentityRequest(visitor_id="kiosk", user_id="bob", change=split))
        receipt = await forget(door, user_id="ann", include_shared_devices=True)
        assert receipt["erased"]["log"] == {"records": 1, "devices_blanked": 1}
        (record,) = await door.records("identity-change")
        change = IdentityChange.FromString(record.payload)
        assert (change.device_key, change.user_key, change.joined) == ("v:", "u:bob", False)


async def test_a_device_alone_can_be_forgotten(open_door: Any, event: Event) -> None:
    async with open_door(**ALONE) as door:
        await door.write(event(1, visitor_id="a"), event(2, visitor_id="a", user_id="ann"), event(3, visitor_id="b"))
        await forget(door, visitor_id="a")
        assert await whose(door) == ["u:ann", "v:b"]
        assert [logged.event.visitor_id for logged in await door.logged()] == ["", "b"]


async def test_old_events_of_the_forgotten_are_refused_without_a_trace_and_new_ones_are_a_new_persons(
    open_door: Any, event: Event
) -> None:
    async with open_door(**ALONE) as door:
        await door.write(event(1, user_id="ann"))
        await forget(door, user_id="ann")
        old = event(1, user_id="ann")
        (refused,) = await door.write(old)
        assert (refused.outcome, refused.reason) == (pb.WriteResult.OUTCOME_REJECTED, "forgotten")
        assert await door.letters() == []
    async with open_door(**ALONE) as door:
        (refused,) = await door.write(old)
        assert refused.reason == "forgotten"
        new = event(1, user_id="ann")
        new.event_time.FromMicroseconds(now_us() + 1_000)
        (taken,) = await door.write(new)
        assert taken.outcome == pb.WriteResult.OUTCOME_ACCEPTED
        assert await whose(door) == ["u:ann"]


async def test_facts_about_the_forgotten_are_refused_without_a_trace_unless_they_begin_later(
    open_door: Any, event: Event
) -> None:
    def membership(begins_us: int | None, person: str = "ann", revision: int = 0) -> DatedFact:
        fact = DatedFact(entity_kind=EntityKind.ENTITY_KIND_USER, entity_id=person, name="campaign", campaign_id="c")
        fact.revision = revision
        if begins_us is not None:
            fact.valid_from.FromMicroseconds(begins_us)
        return fact

    async def written(door: Any, *facts: DatedFact) -> list[str]:
        return [one.reason for one in (await door.stub.WriteFacts(pb.WriteFactsRequest(facts=facts))).results]

    async with open_door(**ALONE) as door:
        await door.write(event(1, user_id="ann", visitor_id="phone"))
        assert await written(door, membership(None), membership(0)) == ["", ""]
        await forget(door, user_id="ann")
    async with open_door(**ALONE) as door:
        device = membership(0)
        device.entity_kind, device.entity_id = EntityKind.ENTITY_KIND_VISITOR, "phone"
        old = (membership(None), membership(0), membership(now_us() - 3_600_000_000, revision=5), device)
        later = (membership(now_us() + 1_000), membership(None, "bob"))
        assert await written(door, *old, *later) == ["forgotten"] * 4 + ["", ""]
        assert [record.key for record in await door.records("dated-fact")] == ["u:ann", "u:bob"]
        assert await door.letters() == []
        status = await door.stub.GetIngestStatus(pb.GetIngestStatusRequest())
        assert status.rules[0].name == "forgotten"


async def test_a_fact_that_was_judged_before_an_erasure_is_in_the_log_before_its_tombstone(
    open_door: Any, event: Event
) -> None:
    """Whatever the interleaving: what was taken is erased, what comes later is refused."""
    async with open_door(**ALONE) as door:
        await door.write(event(1, user_id="ann"))

        async def say(number: int) -> str:
            fact = DatedFact(entity_kind=EntityKind.ENTITY_KIND_USER, entity_id="ann", name="loyal", revision=number)
            (result,) = (await door.stub.WriteFacts(pb.WriteFactsRequest(facts=[fact]))).results
            return str(result.reason)

        before = [asyncio.create_task(say(number)) for number in range(30)]
        forgetting = asyncio.create_task(forget(door, user_id="ann"))
        after = [asyncio.create_task(say(number)) for number in range(30, 60)]
        reasons = set(await asyncio.gather(*before, *after))
        await forgetting
        assert reasons <= {"", "forgotten"}
        assert await say(61) == "forgotten"
        assert await door.records("dated-fact") == []


async def test_a_lost_database_knows_from_the_log_who_was_forgotten(open_door: Any, event: Event, backend: Any) -> None:
    async with open_door(**ALONE) as door:
        await door.write(event(1, user_id="ann"), event(2, user_id="bob"))
        await forget(door, user_id="ann")
    with backend.catalogue() as db:
        for table in ("forgotten", "erasures", "folds"):
            db.exec_driver_sql(f"DELETE FROM {table}")
    async with open_door(**ALONE) as door:
        (refused, taken) = await door.write(event(1, user_id="ann"), event(3, user_id="bob"))
        assert (refused.reason, taken.reason) == ("forgotten", "")


async def test_another_replica_refuses_them_too(open_door: Any, event: Event) -> None:
    async with open_door(forget_consumers="", forget_settle_s=0.2) as one, open_door(forget_settle_s=0.2) as other:
        await other.write(event(1, user_id="ann"))
        await forget(one, user_id="ann")
        (refused,) = await other.write(event(2, user_id="ann"))
        assert refused.reason == "forgotten"


async def test_dead_letters_go_with_their_people(open_door: Any, event: Event, backend: Any) -> None:
    async with open_door(**ALONE) as door:
        await door.write(
            event(1, "dance", user_id="ann"),
            event(2, "dance", visitor_id="phone"),
            event(3, "dance", visitor_id="phone", user_id="bob"),
            event(4, user_id="ann", visitor_id="phone"),
        )
        receipt = await forget(door, user_id="ann", visitor_id="phone")
        assert receipt["erased"]["dead-letters"] == {"letters": 2, "devices_blanked": 1}
        (left,) = await door.letters()
        assert (left.event.user_id, left.event.visitor_id) == ("bob", "")


async def test_asked_again_the_answer_is_the_same_until_the_person_comes_back(open_door: Any, event: Event) -> None:
    async with open_door(**ALONE) as door:
        await door.write(event(1, user_id="ann"))
        first = await door.stub.ForgetUser(pb.ForgetUserRequest(user_id="ann"))
        assert await door.stub.ForgetUser(pb.ForgetUserRequest(user_id="ann")) == first
        new = event(2, user_id="ann")
        new.event_time.FromMicroseconds(now_us())
        await door.write(new)
        second = await forget(door, user_id="ann")
        assert second["erasure_id"] != json.loads(first.receipt)["erasure_id"]
        assert await whose(door) == []
        assert len(await door.records(TOMBSTONE)) == 2


async def test_what_a_consumer_has_not_said_is_pending_until_it_does(
    open_door: Any, event: Event, privacy: Privacy
) -> None:
    async with open_door(forget_consumers="far", forget_settle_s=0.0, forget_deadline_s=0.2) as door:
        await door.write(event(1, user_id="ann"))
        first = await forget(door, user_id="ann")
        assert first["pending"] == {"far": "has not answered within 0.2 s; ask again"}
        assert await whose(door) == []
        await door.log.append([done(first["erasure_id"], "far", "other key", {})])
        assert "another privacy key" in (await forget(door, user_id="ann"))["pending"]["far"]


async def test_the_consumers_erase_before_the_log_does(open_door: Any, event: Event, privacy: Privacy) -> None:
    async with open_door(forget_consumers="near", forget_settle_s=0.0) as door:
        await door.write(event(1, user_id="ann"))
        asked = asyncio.create_task(forget(door, user_id="ann"))
        while not (stones := await door.records(TOMBSTONE)):
            await door.log.wait((await door.log.end())[0], 0.05)
        assert await whose(door) == ["u:ann"]
        erasure = erasure_of(stones[0])
        await door.log.append([done(erasure.id, "near", privacy.fingerprint, {"histories": 1})])
        receipt = await asked
        assert receipt["erased"]["near"] == {"histories": 1}
        assert await whose(door) == []
        assert len(await door.records(DONE)) == 1


@pytest.fixture
async def door_on_brokers(kafka_url: str, tmp_path: Path) -> AsyncIterator[Door]:
    """A door whose log cannot be changed."""
    common = CommonSettings(data_dir=tmp_path, event_log_url=kafka_url)
    settings = IngestSettings(port=0, drain_s=0, **ALONE)
    log = open_event_log(common)
    async with (
        compose(settings, common) as parts,
        running(parts, settings) as server,
        open_channel(server.address) as channel,
    ):
        yield Door(IngestServiceStub(channel), log)
    await log.close()


@dataclass
class Door:
    """As the other doors of these tests are seen, as far as it is needed here."""

    stub: IngestServiceStub
    log: EventLog

    async def write(self, *events: UserEvent) -> list[pb.WriteResult]:
        return list((await self.stub.WriteUserEvents(pb.WriteUserEventsRequest(events=events))).results)


async def test_a_log_that_cannot_change_its_records_is_pending_and_no_pretence_is_made(
    door_on_brokers: Door, event: Event
) -> None:
    door = door_on_brokers
    await door.write(
        event(1, visitor_id="phone"), event(2, "dance", user_id="ann"), event(3, visitor_id="phone", user_id="ann")
    )
    receipt = await forget(door, user_id="ann")
    assert list(receipt["pending"]) == ["log"]
    assert "until its retention" in receipt["pending"]["log"]
    assert receipt["erased"] == {"log": {}, "dead-letters": {"devices_blanked": 0, "letters": 1}}
    assert len(receipt["erased_people"]) == 2
    assert [record.key for record in await door.log.read(0, kinds=("user-event",))] == ["v:phone", "u:ann"]
    (refused,) = await door.write(event(4, user_id="ann"))
    assert refused.reason == "forgotten"


async def test_nobody_named_is_the_callers_fault(open_door: Any) -> None:
    async with open_door(**ALONE) as door:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await forget(door)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "user_id" in (caught.value.details() or "")


async def test_no_id_is_left_in_sql_or_files(open_door: Any, event: Event, backend: Any) -> None:
    async with open_door(**ALONE) as door:
        for number in range(50):
            await door.write(event(number, user_id=f"person-{number:03}"), event(number, "dance", user_id="person-007"))
        await forget(door, user_id="person-007")
        with backend.catalogue() as db:
            for table in ("dead_letters", "forgotten", "erasures"):
                assert "person-007" not in str(db.execute(sa.text(f"SELECT * FROM {table}")).all())
        files = [path for path in backend.common.data_dir.rglob("*") if path.is_file()]
        held = b"".join(path.read_bytes() for path in files)
        assert b"person-007" not in held
        assert (b"person-008" in held) == (not backend.database_url)


async def test_old_dead_letters_are_let_go(open_door: Any, event: Event) -> None:
    async with open_door(dead_letter_days=1e-6) as door:
        await door.write(event(1, "dance"))
        async with asyncio.timeout(10):
            while await door.letters():
                await door.stub.GetIngestStatus(pb.GetIngestStatusRequest())


def test_a_receipt_that_was_changed_or_forged_is_refused() -> None:
    signer, forger = Signer(Privacy(b"one key of a suite")), Signer(Privacy(b"another"))
    receipt = signer.signed({"erasure_id": "e", "erased": {"log": {"records": 3}}})
    assert checked(receipt, signer.public_key)["erased"] == {"log": {"records": 3}}
    with pytest.raises(InvalidRequestError, match="was changed after it was signed"):
        checked(receipt.replace(b'"records": 3', b'"records": 4'), signer.public_key)
    with pytest.raises(InvalidRequestError, match="is signed by key"):
        checked(forger.signed({"erasure_id": "e"}), signer.public_key)
    with pytest.raises(InvalidRequestError, match="is none"):
        checked(b"[]", signer.public_key)
