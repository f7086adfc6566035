from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.runtime.calls import TRACEPARENT
from headrace.runtime.errors import Fault
from headrace.runtime.rpc_status import faults_of
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import FieldViolation, ProductDetail, UserEvent

ACCEPTED, DUPLICATE, REJECTED = (
    pb.WriteResult.OUTCOME_ACCEPTED,
    pb.WriteResult.OUTCOME_DUPLICATE,
    pb.WriteResult.OUTCOME_REJECTED,
)
# `door`, `open_door` and `event` are the conftest's
Event = Callable[..., UserEvent]


def outcomes(results: list[pb.WriteResult]) -> list[int]:
    return [result.outcome for result in results]


async def test_an_accepted_event_is_in_the_log_with_its_identity_and_ordinals(door: Any, event: Event) -> None:
    given = event(5, "add-to-cart", "boots", "socks", "boots", user_id="7", event_id="mine")
    (result,) = await door.write(given)
    (record,) = await door.records()
    (logged,) = await door.logged()
    assert (result.id, result.outcome, result.offset) == ("mine", ACCEPTED, record.offset)
    assert (record.key, record.event_id, record.time_us) == ("u:7", "mine", 1_500_000_005_000_000)
    assert logged.event == given
    assert (logged.user_key, list(logged.item_ordinals)) == ("u:7", [0, 1, 0])
    assert logged.event_time_us == record.time_us
    assert record.append_time_us >= logged.ingest_time_us > 1_600_000_000_000_000


async def test_the_same_batch_sent_ten_times_changes_nothing(door: Any, event: Event) -> None:
    batch = [event(number, "detail-page-view", f"p{number}") for number in range(20)]
    batch += [event(99, "teleport")]
    first = await door.write(*batch)
    end, letters = await door.log.end(), await door.letters()
    for _ in range(9):
        again = await door.write(*batch)
        assert outcomes(again) == [DUPLICATE] * 20 + [REJECTED]
        assert [result.offset for result in again] == [result.offset for result in first]
        assert [result.id for result in again] == [result.id for result in first]
    assert outcomes(first) == [ACCEPTED] * 20 + [REJECTED]
    assert await door.log.end() == end
    assert [letter.id for letter in await door.letters()] == [letter.id for letter in letters]


async def test_an_event_twice_in_a_batch_is_taken_once(door: Any, event: Event) -> None:
    one, two = await door.write(event(1), event(1))
    assert (one.outcome, two.outcome) == (ACCEPTED, DUPLICATE)
    assert (one.id, one.offset) == (two.id, two.offset)


async def test_one_bad_event_never_fails_its_batch(door: Any, event: Event) -> None:
    bad = event(1, "purchase-complete")
    bad.product_details[0].price = -3
    bad.product_details[0].quantity = -1
    results = await door.write(event(0), bad, event(2))
    assert outcomes(results) == [ACCEPTED, REJECTED, ACCEPTED]
    assert results[1].reason == "price"
    assert list(results[1].violations) == [
        FieldViolation(field="product_details[0].price", description="must be 0 .. 1e9, got -3.0"),
        FieldViolation(field="product_details[0].quantity", description="must be 0 .. 1000000, got -1"),
    ]
    assert results[1].offset == 0
    assert len(await door.records()) == 2


async def test_a_refused_event_is_kept_as_it_was_sent(door: Any, event: Event) -> None:
    bad = event(1, "teleport")
    (result,) = await door.write(bad)
    (letter,) = await door.letters()
    assert letter.event == bad
    assert (letter.reason, list(letter.violations)) == ("unknown-type", list(result.violations))
    assert letter.refused_time.seconds > 1_600_000_000


@pytest.mark.parametrize("count", [0, 2_001])
async def test_no_events_or_too_many_are_refused(door: Any, event: Event, count: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.write(*[event(number) for number in range(count)])
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert faults_of(refused.value) == (Fault("events", f"must be 1 .. 2000, got {count}"),)


async def test_the_largest_batch_is_taken(door: Any, event: Event) -> None:
    results = await door.write(*[event(number, visitor_id=str(number % 50)) for number in range(2_000)])
    assert set(outcomes(results)) == {ACCEPTED}


async def test_a_bot_is_cut_off_and_others_are_not(open_door: Any, event: Event) -> None:
    async with open_door(bot_events_per_minute=3) as door:
        same_minute = [event(0, event_id=str(number)) for number in range(5)]
        results = await door.write(*same_minute, event(0, visitor_id="w"))
        assert outcomes(results) == [ACCEPTED] * 3 + [REJECTED] * 2 + [ACCEPTED]
        assert {result.reason for result in results} == {"", "bot"}
        assert outcomes(await door.write(*same_minute)) == [DUPLICATE] * 3 + [REJECTED] * 2


async def test_a_clock_that_is_far_ahead_is_refused(door: Any, event: Event) -> None:
    ahead = Timestamp()
    ahead.GetCurrentTime()
    ahead.seconds += 3_600
    results = await door.write(event(0, event_time=ahead), event(0, event_time=Timestamp(seconds=900_000_000)))
    assert [result.reason for result in results] == ["time", "time"]


async def test_a_cancellation_finds_its_purchase_across_batches_and_restarts(open_door: Any, event: Event) -> None:
    def cancelled(number: int) -> UserEvent:
        return event(number, "purchase-cancel", "boots", transaction_id="t1")

    async with open_door() as door:
        (bought,) = await door.write(event(0, "purchase-complete", "boots", transaction_id="t1"))
        await door.write(event(1, "purchase-complete", "boots", transaction_id="t2"))
    async with open_door() as door:
        results = await door.write(cancelled(2), cancelled(3))
        assert outcomes(results) == [ACCEPTED, ACCEPTED]
        assert [one.cancelled_event_id for one in (await door.logged())[2:]] == [bought.id, ""]


async def test_a_cancellation_finds_a_purchase_that_is_still_on_its_way(open_door: Any, event: Event) -> None:
    # groups of one: the purchase is not durable yet when its cancellation is judged
    async with open_door(stream_batch_events=1) as door:
        kinds = ["purchase-complete", "purchase-cancel"] * 20
        events = [event(number, kind, "boots", event_id=f"e{number}") for number, kind in enumerate(kinds)]
        requests = [pb.StreamUserEventsRequest(sequence=n, event=one) for n, one in enumerate(events)]
        assert [response.sequence async for response in door.stub.StreamUserEvents(iter(requests))] == list(range(40))
        cancelled = [one.cancelled_event_id for one in await door.logged()]
        assert cancelled == ["" if number % 2 == 0 else f"e{number - 1}" for number in range(40)]


async def test_the_trace_of_the_call_goes_with_each_record(door: Any, event: Event) -> None:
    parent = f"00-{0xABC:032x}-{0x12:016x}-01"
    request = pb.WriteUserEventsRequest(events=[event(0)])
    await door.stub.WriteUserEvents(request, metadata=((TRACEPARENT, parent),))
    await door.write(event(1))
    traced, untraced = await door.records()
    assert traced.traceparent.split("-")[1] == f"{0xABC:032x}"
    assert untraced.traceparent == ""


async def test_a_log_that_is_behind_says_when_to_come_back_and_takes_nothing(open_door: Any, event: Event) -> None:
    async with open_door(max_waiting_records=10) as door:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await door.write(*[event(number) for number in range(11)])
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await door.records() == []
        assert outcomes(await door.write(event(1))) == [ACCEPTED]


async def test_a_stream_is_answered_in_order_each_with_its_own_number(door: Any, event: Event) -> None:
    def requests() -> Iterator[pb.StreamUserEventsRequest]:
        for number in range(1_500):
            kind = "teleport" if number % 100 == 7 else "add-to-cart"
            yield pb.StreamUserEventsRequest(sequence=5_000 - number, event=event(number, kind, f"p{number % 10}"))

    responses = [response async for response in door.stub.StreamUserEvents(requests())]
    assert [response.sequence for response in responses] == [5_000 - number for number in range(1_500)]
    rejected = [number for number, response in enumerate(responses) if response.result.outcome == REJECTED]
    assert rejected == list(range(7, 1_500, 100))
    offsets = [response.result.offset for response in responses if response.result.outcome == ACCEPTED]
    assert offsets == sorted(offsets)
    assert [record.offset for record in await door.records()] == offsets


async def test_a_stream_acknowledges_while_it_is_open(door: Any, event: Event) -> None:
    call = door.stub.StreamUserEvents()
    for number in range(3):
        await call.write(pb.StreamUserEventsRequest(sequence=number, event=event(number)))
        response = await call.read()
        assert response.sequence == number
        assert (await door.records())[-1].offset == response.result.offset
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF


async def test_a_stream_within_its_limit_of_unacknowledged_events_passes_whole(open_door: Any, event: Event) -> None:
    async with open_door(max_unacknowledged=8, stream_batch_events=3) as door:
        requests = [pb.StreamUserEventsRequest(sequence=number, event=event(number)) for number in range(100)]
        responses = [response async for response in door.stub.StreamUserEvents(iter(requests))]
        assert [response.sequence for response in responses] == list(range(100))


async def test_dead_letters_are_listed_newest_first_in_pages(door: Any, event: Event) -> None:
    await door.write(*[event(number, "teleport") for number in range(5)], event(9, visitor_id=""))
    first = await door.stub.ListDeadLetters(pb.ListDeadLettersRequest(page_size=4))
    second = await door.stub.ListDeadLetters(pb.ListDeadLettersRequest(page_size=4, page_token=first.next_page_token))
    ids = [letter.id for page in (first, second) for letter in page.dead_letters]
    assert len(ids) == 6
    assert ids == sorted(ids, reverse=True)
    assert second.next_page_token == ""
    assert [letter.reason for letter in await door.letters(reason="missing")] == ["missing"]


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("page_size", pb.ListDeadLettersRequest(page_size=1_001)),
        ("page_size", pb.ListDeadLettersRequest(page_size=-1)),
        ("page_token", pb.ListDeadLettersRequest(page_token="rubbish")),
    ],
)
async def test_a_bad_page_is_refused(door: Any, field: str, request_: pb.ListDeadLettersRequest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.stub.ListDeadLetters(request_)
    assert [fault.field for fault in faults_of(refused.value)] == [field]


async def test_dead_letters_survive_a_restart_and_leave_when_they_pass(open_door: Any, event: Event) -> None:
    async with open_door(min_event_time="2020-01-01T00:00:00Z") as door:
        old = [event(number) for number in range(3)]
        assert {result.reason for result in await door.write(*old, event(9, "teleport"))} == {"time", "unknown-type"}
    async with open_door() as door:
        assert len(await door.letters()) == 4
        answer = await door.stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest())
        assert (answer.replayed, answer.accepted, answer.still_rejected) == (4, 3, 1)
        assert [letter.reason for letter in await door.letters()] == ["unknown-type"]
        assert [one.event.event_time.seconds for one in await door.logged()] == [1_500_000_000 + n for n in range(3)]


async def test_only_the_named_dead_letters_are_replayed(open_door: Any, event: Event) -> None:
    async with open_door(min_event_time="2020-01-01T00:00:00Z") as door:
        await door.write(event(0), event(1), event(2, "teleport", event_time=Timestamp(seconds=1_700_000_000)))
    async with open_door() as door:
        wrong, second, first = await door.letters()
        replay = door.stub.ReplayDeadLetters
        answer = await replay(pb.ReplayDeadLettersRequest(ids=[second.id, wrong.id, 999], reason="time"))
        assert (answer.replayed, answer.accepted) == (1, 1)
        answer = await replay(pb.ReplayDeadLettersRequest(reason="unknown-type"))
        assert (answer.replayed, answer.still_rejected) == (1, 1)
        assert [letter.id for letter in await door.letters()] == [wrong.id, first.id]


async def test_the_status_counts_what_happened(door: Any, event: Event) -> None:
    await door.write(event(0), event(1), event(0), event(2, "teleport"), event(3, visitor_id=""))
    status = await door.stub.GetIngestStatus(pb.GetIngestStatusRequest())
    offset, append_time_us = await door.log.end()
    assert (status.accepted, status.duplicates, dict(status.rejected_by_reason)) == (
        2,
        1,
        {"unknown-type": 1, "missing": 1},
    )
    assert (status.log_end_offset, status.log_end_time.ToMicroseconds()) == (offset, append_time_us)
    assert (status.dead_letters, status.items) == (2, 1)


async def test_a_basket_of_500_lines_is_one_event(door: Any, event: Event) -> None:
    basket = event(0, "purchase-complete")
    del basket.product_details[:]
    basket.product_details.extend(ProductDetail(product_id=f"p{number}", quantity=2) for number in range(500))
    assert outcomes(await door.write(basket)) == [ACCEPTED]
    assert list((await door.logged())[0].item_ordinals) == list(range(500))
