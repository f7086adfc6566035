from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from headrace.cli.replay import Pace
from headrace.datasets.feed import Chunk
from headrace.datasets.times import timestamp, us
from headrace.v1.common_pb2 import UserEvent

START = datetime(2025, 1, 1, tzinfo=UTC)


def chunk(*seconds: float, last: float) -> Chunk:
    events = [UserEvent(event_time=timestamp(us(START + timedelta(seconds=s)))) for s in seconds]
    return Chunk([], events, START + timedelta(seconds=last))


def sizes(pace: Pace, given: Chunk) -> list[int]:
    return [len(portion) for _, portion in pace.portions(given)]


def test_at_full_speed_a_chunk_goes_as_it_is() -> None:
    assert sizes(Pace(None), chunk(0, 100, 5_000, last=5_000)) == [3]


def test_events_go_together_within_a_quarter_of_a_second_of_wall_time() -> None:
    assert sizes(Pace(40.0), chunk(0, 5, 9, 10, 25, last=25)) == [3, 1, 1]


def test_an_absurd_time_neither_stops_nor_rewinds_the_clock() -> None:
    assert sizes(Pace(40.0), chunk(0, 1e9, 2, 10, last=10)) == [1, 3]


async def test_portions_are_let_through_when_they_are_due() -> None:
    pace, begun = Pace(100.0), time.monotonic()
    for due_us, _ in pace.portions(chunk(0, 30, last=30)):
        await pace.wait_until(due_us)

    assert time.monotonic() - begun >= 0.3
