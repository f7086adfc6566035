"""Rules with a memory, at a real door: what a retry, a restart and a person may change, and what not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.cleaning import SMALL, send, shares_of, shop_of
from headrace.runtime.rpc_status import faults_of
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import CHANNEL_APP, CHANNEL_WEB, UserEvent

ACCEPTED, DUPLICATE, REJECTED = (
    pb.WriteResult.OUTCOME_ACCEPTED,
    pb.WriteResult.OUTCOME_DUPLICATE,
    pb.WriteResult.OUTCOME_REJECTED,
)
Event = Callable[..., UserEvent]


def outcomes(results: list[pb.WriteResult]) -> list[int]:
    return [result.outcome for result in results]


def priced(event: Event, number: int, price: float, **fields: object) -> UserEvent:
    given = event(number * 60, "purchase-complete", "boots", event_id=f"{price}-{number}", **fields)
    given.product_details[0].price = price
    return given


async def test_what_was_taken_stays_a_duplicate_when_a_rule_thinks_otherwise_since(
    open_door: Any, event: Event
) -> None:
    first = priced(event, 0, 950.0)
    async with open_door() as door:
        assert outcomes(await door.write(first)) == [ACCEPTED]
        usual = await door.write(*[priced(event, number, 9.5) for number in range(1, 40)])
        assert set(outcomes(usual)) == {ACCEPTED}
        assert outcomes(await door.write(priced(event, 99, 950.0), first)) == [REJECTED, DUPLICATE]
    async with open_door() as door:
        # the memory comes back from the log
        assert outcomes(await door.write(priced(event, 98, 950.0), first)) == [REJECTED, DUPLICATE]
        assert len(await door.records()) == 40


async def test_events_of_a_bot_that_came_in_before_stay_duplicates(door: Any, event: Event) -> None:
    views = [event(number, event_id=f"view-{number}") for number in range(150)]
    first = outcomes(await door.write(*views))
    assert first == [ACCEPTED] * first.count(ACCEPTED) + [REJECTED] * first.count(REJECTED)
    assert first.count(ACCEPTED) == 100
    assert outcomes(await door.write(*reversed(views))) == [REJECTED] * 50 + [DUPLICATE] * 100


async def test_a_retried_batch_with_a_double_click_gives_the_same_answers(door: Any, event: Event) -> None:
    time = Timestamp(seconds=1_500_000_000, nanos=5_000_000)
    batch = [event(0, event_time=time, event_id=name) for name in ("click", "click again")]
    assert outcomes(await door.write(*batch)) == [ACCEPTED, REJECTED]
    assert outcomes(await door.write(*batch)) == [DUPLICATE, REJECTED]


async def test_rules_and_marks_are_counted_by_channel(door: Any, event: Event) -> None:
    web, app = {"channel": CHANNEL_WEB}, {"channel": CHANNEL_APP}
    await door.write(
        event(0, "teleport", visitor_id="", **web),
        event(1, "teleport", **app),
        event(2, "purchase-cancel", "boots", **app),
        event(3, "purchase-complete", "hats", **app),
    )
    too_many = event(4, "purchase-cancel", "hats", **app)
    too_many.product_details[0].quantity = 2
    for _ in range(2):
        await door.write(too_many)
    status = await door.stub.GetIngestStatus(pb.GetIngestStatusRequest())
    assert {(count.rule, count.channel): count.events for count in status.rule_counts} == {
        ("missing", CHANNEL_WEB): 1,
        ("unknown-type", CHANNEL_WEB): 1,
        ("unknown-type", CHANNEL_APP): 1,
        ("cancel-unmatched", CHANNEL_APP): 1,
        ("cancel-exceeds", CHANNEL_APP): 1,
    }
    assert dict(status.rejected_by_reason) == {"missing": 1, "unknown-type": 1}


async def test_the_rules_are_told_with_their_settings(open_door: Any) -> None:
    async with open_door(outlier_score=4.5) as door:
        status = await door.stub.GetIngestStatus(pb.GetIngestStatusRequest())
    rules = {rule.name: rule for rule in status.rules}
    assert dict(rules["outlier"].settings) == {"outlier_score": "4.5"}
    assert rules["outlier"].action == pb.CleaningRule.ACTION_REFUSE
    assert rules["cancel-unmatched"].action == pb.CleaningRule.ACTION_MARK


async def test_a_mended_letter_passes_and_leaves_the_list(door: Any, event: Event) -> None:
    await door.write(event(0, "teleport"), event(1, "teleport"))
    second, first = await door.letters()
    mended, worse = UserEvent(), UserEvent()
    mended.CopyFrom(first.event)
    worse.CopyFrom(second.event)
    mended.event_type, worse.visitor_id = "detail-page-view", ""
    changed = [pb.MendedDeadLetter(id=first.id, event=mended), pb.MendedDeadLetter(id=second.id, event=worse)]
    answer = await door.stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(mended=changed))
    assert (answer.replayed, answer.accepted, answer.still_rejected) == (2, 1, 1)
    (left,) = await door.letters()
    # with the faults that it has now
    assert (left.event.event_type, left.reason, len(left.violations)) == ("teleport", "missing", 2)
    assert [one.event.event_type for one in await door.logged()] == ["detail-page-view"]


async def test_a_letter_that_is_sent_again_unchanged_stays(door: Any, event: Event) -> None:
    await door.write(event(0, "teleport"))
    (letter,) = await door.letters()
    same = pb.ReplayDeadLettersRequest(mended=[pb.MendedDeadLetter(id=letter.id, event=letter.event)])
    assert (await door.stub.ReplayDeadLetters(same)).still_rejected == 1
    assert [one.id for one in await door.letters()] == [letter.id]


async def test_a_person_may_excuse_a_rule_that_judges_and_no_other(door: Any, event: Event) -> None:
    await door.write(*[priced(event, number, 9.5) for number in range(20)])
    await door.write(priced(event, 30, 950.0), event(0, "teleport"))
    replay = door.stub.ReplayDeadLetters
    assert (await replay(pb.ReplayDeadLettersRequest())).accepted == 0
    assert (await replay(pb.ReplayDeadLettersRequest(excused_rules=["outlier"]))).accepted == 1
    assert [letter.reason for letter in await door.letters()] == ["unknown-type"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await replay(pb.ReplayDeadLettersRequest(excused_rules=["unknown-type"]))
    assert [fault.field for fault in faults_of(refused.value)] == ["excused_rules"]


async def test_mending_what_is_not_there_is_not_found(door: Any, event: Event) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.stub.ReplayDeadLetters(
            pb.ReplayDeadLettersRequest(mended=[pb.MendedDeadLetter(id=7, event=event(0))])
        )
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert await door.records() == []


async def test_ids_may_be_required(open_door: Any, event: Event) -> None:
    async with open_door(require_event_ids=True) as door:
        results = await door.write(event(0), event(1, event_id="one"))
        assert [result.reason for result in results] == ["missing", ""]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_is_planted_in_a_shop_is_found_and_the_good_is_taken(door: Any) -> None:
    shop = shop_of(11, **SMALL)
    shares = shares_of(shop, await send(door.stub, shop))
    assert shares.pop("good lost") <= 0.001
    assert shares.pop("bot events refused") > 0.7
    assert {kind: share for kind, share in shares.items() if share < 0.99} == {}
