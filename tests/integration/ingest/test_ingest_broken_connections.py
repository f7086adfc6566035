"""A client that loses its connection and sends all of it again, and a log that is slower than the clients."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import UserEvent
from headrace.v1.ingest_pb2_grpc import IngestServiceStub

Event = Callable[..., UserEvent]
PEOPLE, EACH = 20, 60


@pytest.fixture
def brought(event: Event) -> list[UserEvent]:
    """Half of them without an id, some with faults."""
    return [
        event(
            number,
            "detail-page-view" if number % 11 else "teleport",
            f"p{number % 7}",
            visitor_id=f"v{number % PEOPLE}",
            event_id=f"e{number}" if number % 2 else "",
        )
        for number in range(PEOPLE * EACH)
    ]


async def _requests(events: list[UserEvent]) -> AsyncIterator[pb.StreamUserEventsRequest]:
    for number, event in enumerate(events):
        yield pb.StreamUserEventsRequest(sequence=number, event=event)
        await asyncio.sleep(0)


async def test_a_stream_that_breaks_and_is_sent_again_from_its_beginning_changes_nothing(
    open_door: Any, brought: list[UserEvent]
) -> None:
    async with open_door(stream_batch_events=40) as door:
        for broken_after in (1, 100, 500):
            call = door.stub.StreamUserEvents(_requests(brought))
            for _ in range(broken_after):
                await call.read()
            call.cancel()
        answers = [answer async for answer in door.stub.StreamUserEvents(_requests(brought))]
        assert [answer.sequence for answer in answers] == list(range(len(brought)))
        await _check_log(door, brought)
        again = [answer async for answer in door.stub.StreamUserEvents(_requests(brought))]
        assert pb.WriteResult.OUTCOME_ACCEPTED not in {answer.result.outcome for answer in again}
        assert [answer.result.id for answer in again] == [answer.result.id for answer in answers]
        await _check_log(door, brought)


async def _check_log(door: Any, brought: list[UserEvent]) -> None:
    sound = [event for event in brought if event.event_type != "teleport"]
    logged = [one.event for one in await door.logged()]
    assert len(logged) == len(sound)
    for person in range(PEOPLE):
        times = [event.event_time.seconds for event in logged if event.visitor_id == f"v{person}"]
        assert times == [event.event_time.seconds for event in sound if event.visitor_id == f"v{person}"]
    assert len(await door.letters(page_size=1_000)) == len(brought) - len(sound)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_slow_log_bounds_what_waits_and_what_was_refused_comes_in_later(
    open_door: Any, backend: Any, event: Event
) -> None:
    batches = [
        [event(number, event_id=f"{batch}-{number}", visitor_id=f"v{number}") for number in range(50)]
        for batch in range(20)
    ]
    async with open_door(max_waiting_records=200) as door:
        await door.write(event(0, "detail-page-view", "p"))
        # nobody else writes while this transaction is open
        with sqlite3.connect(backend.common.data_dir / "events.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            calls = [asyncio.create_task(_sent(door.stub, batch)) for batch in batches]
            # what is not refused waits for the log, and cannot be done
            refused = [await done for done in itertools.islice(asyncio.as_completed(calls), len(calls) - 4)]
            assert all(seconds > 0 for seconds in refused)
            other.execute("COMMIT")
        answers = await asyncio.gather(*calls)
        assert sorted(answers) == [0.0] * 4 + sorted(refused)
        for batch in batches:
            assert await _sent(door.stub, batch) == 0.0
        logged = [one.event.event_id for one in await door.logged()][1:]
        assert sorted(logged) == sorted(event.event_id for batch in batches for event in batch)


async def _sent(stub: IngestServiceStub, batch: list[UserEvent]) -> float:
    """0, or the seconds after which to come back."""
    call = stub.WriteUserEvents(pb.WriteUserEventsRequest(events=batch))
    code = await call.code()
    if code == grpc.StatusCode.OK:
        return 0.0
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_details_pb2.RetryInfo()
    status = await rpc_status.aio.from_call(call)
    assert any(detail.Unpack(info) for detail in status.details)
    return float(info.retry_delay.ToTimedelta().total_seconds())
