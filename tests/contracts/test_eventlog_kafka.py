"""What the event log on Kafka's protocol does beyond the contract: known ids, brokers that are away, wrong topics."""

from __future__ import annotations

import asyncio
import os
import random
import runpy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks.kafka_mock import KafkaMock, kafka_mock
from headrace.runtime.errors import CorruptDataError, FailedPreconditionError, InvalidRequestError, UnavailableError
from headrace.runtime.eventlog import EventLog
from headrace.runtime.eventlog.kafka import KafkaEventLog
from headrace.runtime.eventlog.kafka_ids import EventIds, digest
from headrace.runtime.eventlog.kafka_records import message_of
from headrace.runtime.eventlog.kafka_topic import Topic
from headrace.runtime.eventlog.kafka_url import kafka_url as parsed

record = runpy.run_path(str(Path(__file__).with_name("eventlog_worker.py")))["record"]
Open = Callable[[], EventLog]
T = TypeVar("T")
# more of them where there is time: TEST_KAFKA_OUTAGES=100
OUTAGES = int(os.environ.get("TEST_KAFKA_OUTAGES", "2"))


@pytest.fixture
async def open_log(kafka_url: str, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the log of one topic as often as needed, with the ids of one machine."""
    opened: list[EventLog] = []

    def open_it() -> EventLog:
        opened.append(KafkaEventLog(kafka_url, tmp_path))
        return opened[-1]

    yield open_it
    for log in opened:
        await log.close()


@pytest.fixture
def raw_topic(kafka_url: str) -> Iterator[Topic]:
    """The topic as somebody writes to it who does not look what is there."""
    topic = Topic(parsed(kafka_url))
    topic.open()
    yield topic
    topic.close()


async def test_of_two_records_with_one_id_the_first_counts_for_everybody(open_log: Open, raw_topic: Topic) -> None:
    raw_topic.append([message_of(record(event_id, payload=event_id.encode())) for event_id in ("a", "b", "a", "a")])
    log = open_log()
    assert [(one.offset, one.event_id) for one in await log.read(0)] == [(1, "a"), (2, "b")]
    assert (await log.end())[0] == 2
    assert not await log.wait(2, timeout_s=0.05)
    assert await log.read(2) == []
    repeat, new = await log.append([record("a"), record("c")])
    assert (repeat.offset, repeat.duplicate, new.offset, new.duplicate) == (1, True, 5, False)
    assert [(one.offset, one.event_id) for one in await open_log().read(0)] == [(1, "a"), (2, "b"), (5, "c")]


async def test_a_follower_is_not_woken_by_a_repeat_but_by_what_follows_it(open_log: Open, raw_topic: Topic) -> None:
    log = open_log()
    await log.append([record("a")])
    waiting = asyncio.create_task(log.wait(1, timeout_s=60))
    raw_topic.append([message_of(record("a"))])
    assert (await log.end())[0] == 1
    assert not waiting.done()
    raw_topic.append([message_of(record("b"))])
    assert await asyncio.wait_for(waiting, 30)
    assert [(one.offset, one.event_id) for one in await log.read(1)] == [(3, "b")]


async def test_many_openings_that_race_for_the_same_ids_get_one_answer(open_log: Open) -> None:
    logs = [open_log() for _ in range(4)]
    # each has its producer before they race
    await asyncio.gather(*(log.append([record(f"own-{number}")]) for number, log in enumerate(logs)))
    for turn in range(20):
        answers = await asyncio.gather(*(log.append([record(f"{turn}-{n}") for n in range(3)]) for log in logs))
        for place in zip(*answers, strict=True):
            assert len({one.offset for one in place}) == 1
            assert sum(not one.duplicate for one in place) == 1
    found = [one.event_id for one in await logs[0].read(0)]
    assert sorted(found) == sorted([f"own-{n}" for n in range(4)] + [f"{t}-{n}" for t in range(20) for n in range(3)])


async def test_each_opening_has_a_file_of_its_own_and_the_next_goes_on_where_the_last_one_stood(
    kafka_url: str, tmp_path: Path
) -> None:
    one, two = KafkaEventLog(kafka_url, tmp_path), KafkaEventLog(kafka_url, tmp_path)
    await one.append([record("a"), record("b")])
    assert (await two.append([record("a")]))[0].duplicate
    await two.close()
    await one.append([record("c")])
    await one.close()
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["0.db", "1.db"]
    topic = Topic(parsed(kafka_url))
    name = topic.open()
    topic.close()
    first, second = EventIds(tmp_path, name), EventIds(tmp_path, name)
    assert (first.offset, second.offset) == (3, 2)
    first.close()
    second.close()
    again = KafkaEventLog(kafka_url, tmp_path)
    assert (await again.append([record("b")]))[0].duplicate
    await again.close()


async def test_a_damaged_file_is_folded_anew(kafka_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = KafkaEventLog(kafka_url, tmp_path)
    await log.append([record(str(number)) for number in range(2_000)])
    await log.close()
    file = tmp_path / "0.db"
    content = bytearray(file.read_bytes())
    content[4_096:12_288] = b"\xff" * 8_192
    file.write_bytes(content)
    again = KafkaEventLog(kafka_url, tmp_path)
    assert all(place.duplicate for place in await again.append([record(str(number)) for number in range(2_000)]))
    await again.close()
    assert [one.message for one in caplog.records if one.message == "event_ids_damaged"] == ["event_ids_damaged"]


async def test_ids_of_another_topic_or_of_one_that_was_longer_are_not_used(kafka_url: str, tmp_path: Path) -> None:
    topic = Topic(parsed(kafka_url))
    name = topic.open()
    topic.close()
    for folded in ("cluster/another", name):
        ids = EventIds(tmp_path, folded)
        ids.fold(["a", "b", "c"], 0)
        ids.close()
        log = KafkaEventLog(kafka_url, tmp_path)
        assert await log.end() == (0, 0)
        await log.close()
    log = KafkaEventLog(kafka_url, tmp_path)
    assert not (await log.append([record("a")]))[0].duplicate
    await log.close()


def test_ids_are_folded_without_gaps_and_forgotten_with_their_records(tmp_path: Path) -> None:
    ids = EventIds(tmp_path, "t")
    ids.fold(["a", "b", "a"], 0)
    # what overlaps is known
    ids.fold(["a", "c"], 2)
    assert (ids.firsts(["a", "b", "c", "d"]), ids.repeats(0, 9)) == ({"a": 0, "b": 1, "c": 3}, {2})
    with pytest.raises(ValueError, match="folded up to 4, the next offset is 5"):
        ids.fold(["e"], 5)
    assert ids.forget_some(2)
    assert (ids.firsts(["a", "b", "c"]), ids.newest()) == ({"c": 3}, 3)
    ids.close()
    assert digest("a\0") != digest("a")


async def test_brokers_that_are_away_are_told_and_the_log_goes_on_when_they_are_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # four questions, each of which waits as long as it may
    monkeypatch.setattr("headrace.runtime.eventlog.kafka_topic._ASK_S", 1.0)
    with kafka_mock() as mock:
        log = KafkaEventLog(mock.new_topic(), tmp_path)
        await log.append([record("a")])
        mock.stop_broker()
        for ask in (lambda: log.append([record("b")]), lambda: log.read(0), lambda: log.wait(1, 1), log.end):
            with pytest.raises(UnavailableError, match=r"event log topic events-1 at 127\.0\.0\.1") as told:
                await ask()
            assert told.value.retry_after_s
        mock.start_broker()
        await until_available(log.end)
        await log.append([record("a"), record("b")])
        assert [one.event_id for one in await log.read(0)] == ["a", "b"]
        await log.close()


async def until_available(ask: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await ask()
        except UnavailableError:
            await asyncio.sleep(0.02)


async def test_brokers_that_were_never_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.runtime.eventlog.kafka_topic._ASK_S", 0.3)
    log = KafkaEventLog("kafka://127.0.0.1:1/shop?sasl.password=secret", tmp_path)
    with pytest.raises(UnavailableError, match=r"event log topic shop at 127\.0\.0\.1:1: ") as told:
        await log.append([record("a")])
    assert "secret" not in str(told.value)
    await log.close()


async def test_a_topic_of_several_partitions_is_refused(shared_kafka: KafkaMock, tmp_path: Path) -> None:
    log = KafkaEventLog(shared_kafka.new_topic(partitions=3), tmp_path)
    with pytest.raises(FailedPreconditionError, match="has 3 partitions; a log is one order, so it must have 1"):
        await log.append([record("a")])
    await log.close()


async def test_what_somebody_else_wrote_into_the_topic_is_named(open_log: Open, raw_topic: Topic) -> None:
    raw_topic.append([(b"k", b"not ours", [])])
    with pytest.raises(CorruptDataError, match="offset 0: not a record of the event log"):
        await open_log().read(0)


async def test_a_record_that_is_too_large_fails_its_own_caller_only(
    open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.eventlog.kafka.LARGEST_BYTES", 1_000)
    log = open_log()
    with pytest.raises(InvalidRequestError, match="must be at most 1000 bytes"):
        await log.append([record("large", payload=bytes(1_000))])
    assert not (await log.append([record("a")]))[0].duplicate


async def test_outages_of_the_brokers_lose_nothing_that_was_acknowledged_and_double_nothing(tmp_path: Path) -> None:
    with kafka_mock() as mock:
        url, stop = mock.new_topic(), asyncio.Event()
        acknowledged: dict[str, int] = {}
        logs = [KafkaEventLog(url, tmp_path) for _ in range(3)]
        writers = [asyncio.create_task(write_until(stop, log, f"w{n}", acknowledged)) for n, log in enumerate(logs)]
        moments = random.Random(5)
        for _ in range(OUTAGES):
            goal = len(acknowledged) + moments.randint(30, 100)
            await until(lambda goal=goal: len(acknowledged) >= goal)
            mock.stop_broker()
            await asyncio.sleep(moments.uniform(0, 0.1))
            mock.start_broker()
        stop.set()
        await asyncio.gather(*writers)
        found = [await log.read(0, limit=100_000) for log in logs]
        for log in logs:
            await log.close()
    assert found[0] == found[1] == found[2]
    assert len({one.event_id for one in found[0]}) == len(found[0])
    assert {one.event_id: one.offset for one in found[0]}.items() >= acknowledged.items()


async def write_until(stop: asyncio.Event, log: EventLog, name: str, acknowledged: dict[str, int]) -> None:
    """Appends batches, each until it is acknowledged, and notes the offsets that were told."""
    number = 0
    while not stop.is_set():
        batch = [record(f"{name}-{number + extra}") for extra in range(5)]
        placed = await until_available(lambda batch=batch: log.append(batch))
        acknowledged |= {one.event_id: place.offset for one, place in zip(batch, placed, strict=True)}
        number += len(batch)


async def until(holds: Callable[[], bool]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0.001)
