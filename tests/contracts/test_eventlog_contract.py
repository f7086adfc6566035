"""What every event log promises; a backend joins by a name in `BACKENDS` and a way to open it in the worker."""

from __future__ import annotations

import asyncio
import os
import random
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.kafka_mock import KafkaMock
from headrace.runtime.errors import FailedPreconditionError, OverloadedError, TrimmedError
from headrace.runtime.eventlog import EventLog, LoggedRecord, partition_of

WORKER = Path(__file__).with_name("eventlog_worker.py")
_worker = runpy.run_path(str(WORKER))
open_log, record = _worker["open_log"], _worker["record"]

BACKENDS = ("sqlite", "postgresql", "kafka")
# a new producer of librdkafka needs half a second for its first record
ROUNDS = {"sqlite": 20, "postgresql": 20, "kafka": int(os.environ.get("TEST_KAFKA_KILLS", "3"))}


@dataclass(frozen=True)
class Place:
    """One log, empty at first, that can be opened many times."""

    backend: str
    location: str
    mock: KafkaMock | None = None

    def open(self, **options: int) -> EventLog:
        return open_log(self.location, **options)

    @property
    def is_mock(self) -> bool:
        return self.mock is not None

    async def forget(self, log: EventLog, before: int) -> None:
        """Makes the log forget all of its records below an offset, of which all but the newest."""
        if self.is_mock:
            self.mock.delete_records(self.location, before - 1)  # type: ignore[union-attr]
        else:
            assert await log.trim((await log.end())[1] + 1) == before - 1

    @contextmanager
    def process(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        arguments = [sys.executable, str(WORKER), self.location, *command]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    fixtures = {"postgresql": "postgres_url", "kafka": "kafka_url"}
    url = request.getfixturevalue(fixtures[request.param]) if request.param in fixtures else ""
    is_mock = request.param == "kafka" and not os.environ.get("TEST_KAFKA_BOOTSTRAP")
    mock = request.getfixturevalue("shared_kafka") if is_mock else None
    return Place(request.param, f"{tmp_path}|{url}", mock)


@pytest.fixture
async def log(place: Place) -> AsyncIterator[EventLog]:
    opened = place.open()
    yield opened
    await opened.close()


async def everything(log: EventLog) -> list[LoggedRecord]:
    return await log.read(0, limit=1_000_000)


async def test_offsets_start_at_one_and_grow_in_the_order_of_appending(log: EventLog) -> None:
    first = await log.append([record("a"), record("b")])
    second = await log.append([record("c")])
    offsets = [one.offset for one in first + second]
    assert offsets[0] == 1
    assert offsets == sorted(set(offsets))
    assert [one.event_id for one in await everything(log)] == ["a", "b", "c"]


async def test_a_record_comes_back_as_it_was_given(log: EventLog) -> None:
    given = record("ä/1", kind="impression", key="v:ü", payload=bytes(range(256)))
    await log.append([given])
    (found,) = await everything(log)
    assert (found.kind, found.key, found.event_id, found.time_us, found.payload, found.traceparent) == (
        given.kind,
        given.key,
        given.event_id,
        given.time_us,
        given.payload,
        "",
    )
    assert found.append_time_us > 1_600_000_000_000_000


async def test_appending_nothing_changes_nothing(log: EventLog) -> None:
    assert await log.append([]) == []
    assert await log.end() == (0, 0)


async def test_a_repeat_inside_a_batch_gets_the_first_ones_offset(log: EventLog) -> None:
    first, other, repeat = await log.append([record("a"), record("b"), record("a", payload=b"changed")])
    assert (repeat.offset, repeat.duplicate, other.duplicate) == (first.offset, True, False)
    assert [one.payload for one in await everything(log)] == [b"x", b"x"]


async def test_a_repeat_in_a_later_batch_gets_the_first_ones_offset(log: EventLog) -> None:
    (first,) = await log.append([record("a")])
    repeat, new = await log.append([record("a"), record("b")])
    assert (repeat.offset, repeat.duplicate) == (first.offset, True)
    assert new.offset > first.offset


async def test_offsets_are_found_by_event_id(log: EventLog) -> None:
    first, second = await log.append([record("a"), record("b\0ä")])
    assert await log.offsets_of(["b\0ä", "a", "c"]) == {"a": first.offset, "b\0ä": second.offset}
    assert await log.offsets_of([]) == {}


async def test_an_id_belongs_to_one_record_whatever_its_key_is(log: EventLog) -> None:
    (first,) = await log.append([record("a", key="v:device")])
    repeats = await log.append([record("a", key=f"u:{number}") for number in range(100)])
    assert {(repeat.offset, repeat.duplicate) for repeat in repeats} == {(first.offset, True)}
    assert [one.key for one in await everything(log)] == ["v:device"]


async def test_any_character_may_be_in_ids_and_keys(log: EventLog) -> None:
    await log.append([record("a\0b", key="u:\0"), record("a"), record("\U0001f600")])
    assert [(one.event_id, one.key) for one in await everything(log)] == [
        ("a\0b", "u:\0"),
        ("a", "u:1"),
        ("\U0001f600", "u:1"),
    ]
    assert (await log.append([record("a\0b")]))[0].duplicate


async def test_a_repeat_through_another_opening_is_noticed(place: Place, log: EventLog) -> None:
    (first,) = await log.append([record("a")])
    other = place.open()
    (repeat,) = await other.append([record("a")])
    await other.close()
    assert (repeat.offset, repeat.duplicate) == (first.offset, True)


async def test_concurrent_appends_of_one_id_keep_one_record(log: EventLog) -> None:
    answers = await asyncio.gather(*(log.append([record("a"), record(f"own-{n}")]) for n in range(20)))
    assert len({answer[0].offset for answer in answers}) == 1
    assert sum(not answer[0].duplicate for answer in answers) == 1
    assert len(await everything(log)) == 21


async def test_concurrent_calls_enter_in_the_order_in_which_they_were_made(log: EventLog) -> None:
    await asyncio.gather(*(log.append([record(f"{n}-{m}") for m in range(3)]) for n in range(50)))
    assert [one.event_id for one in await everything(log)] == [f"{n}-{m}" for n in range(50) for m in range(3)]


async def test_the_end_is_the_newest_records(log: EventLog) -> None:
    assert await log.end() == (0, 0)
    await log.append([record("a"), record("b")])
    last = (await everything(log))[-1]
    assert await log.end() == (last.offset, last.append_time_us)


async def test_reading_goes_on_after_an_offset_and_stops_at_the_limit(log: EventLog) -> None:
    placed = await log.append([record(str(number)) for number in range(10)])
    found = await log.read(placed[3].offset, limit=4)
    assert [one.event_id for one in found] == ["4", "5", "6", "7"]
    assert await log.read(placed[-1].offset) == []


async def test_reading_can_be_limited_to_kinds(log: EventLog) -> None:
    await log.append([record("a", kind="user-event"), record("b", kind="impression"), record("c", kind="other")])
    found = await log.read(0, kinds=("impression", "other"))
    assert [one.event_id for one in found] == ["b", "c"]


async def test_reading_can_be_limited_to_partitions_and_a_key_stays_in_one(log: EventLog) -> None:
    keys = [f"u:{number}" for number in range(100)]
    await log.append([record(f"{turn}-{key}", key=key) for turn in range(2) for key in keys])
    mine = partition_of("u:7")
    found = await log.read(0, partitions=(mine,))
    assert Counter(one.key for one in found)["u:7"] == 2
    assert {one.partition for one in found} == {mine}
    assert {one.key for one in found} == {key for key in keys if partition_of(key) == mine}


def test_partitions_are_the_same_for_every_process_and_version() -> None:
    # the check value of CRC-32 is 0xCBF43926
    assert partition_of("123456789") == 0xCBF43926 % 64


async def test_waiting_answers_at_once_when_there_is_more(log: EventLog) -> None:
    await log.append([record("a")])
    assert await log.wait(0, timeout_s=60)


async def test_waiting_gives_up_when_nothing_comes(log: EventLog) -> None:
    assert not await log.wait(0, timeout_s=0.02)


async def test_waiting_wakes_when_another_opening_appends(place: Place, log: EventLog) -> None:
    waiting = asyncio.create_task(log.wait(0, timeout_s=60))
    other = place.open()
    await other.append([record("a")])
    assert await asyncio.wait_for(waiting, 30)
    await other.close()


async def test_trimming_forgets_old_records_and_offsets_go_on(place: Place, log: EventLog) -> None:
    if place.is_mock:
        pytest.skip("librdkafka's mock cluster has no request for deleting records")
    placed = await log.append([record("a"), record("b")])
    now_us = (await log.end())[1]
    assert await log.trim(now_us + 1) == 1
    assert [one.event_id for one in await everything(log)] == ["b"]
    (again,) = await log.append([record("a")])
    assert not again.duplicate
    assert again.offset > placed[-1].offset


async def test_a_reader_whose_next_record_was_forgotten_is_told_and_a_new_one_begins_with_the_oldest(
    place: Place, log: EventLog
) -> None:
    await log.append([record(str(number)) for number in range(1, 6)])
    await place.forget(log, 5)
    for kinds in ((), ("user-event",)):
        with pytest.raises(TrimmedError, match="forgotten the records 3 to 4, which a reader that stands at 2") as told:
            await log.read(2, kinds=kinds)
        assert told.value.oldest_offset == 5
        assert [one.event_id for one in await log.read(0, kinds=kinds)] == ["5"]
        assert [one.event_id for one in await log.read(4, kinds=kinds)] == ["5"]
        assert await log.read(5, kinds=kinds) == []
    assert (await log.append([record("2"), record("5")]))[1].duplicate


async def test_too_much_waiting_is_refused_whole_and_taken_later(place: Place) -> None:
    log = place.open(max_waiting=10)
    batch = [record(f"a{number}") for number in range(8)]
    first = asyncio.create_task(log.append(batch))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="8 records wait") as refused:
        await log.append([record(f"b{number}") for number in range(3)])
    assert refused.value.retry_after_s
    await first
    assert [one.event_id for one in await everything(log)] == [one.event_id for one in batch]
    await log.append([record("b0")])
    await log.close()


async def test_a_record_that_cannot_be_kept_fails_its_own_callers_only(log: EventLog) -> None:
    bad = record("bad")._replace(time_us=2**80)
    answers = await asyncio.gather(
        *(log.append([one]) for one in (record("b"), bad, record("c"))), return_exceptions=True
    )
    assert [isinstance(answer, OverflowError) for answer in answers] == [False, True, False]
    await log.append([record("good")])
    assert [one.event_id for one in await everything(log)] == ["b", "c", "good"]


async def test_restored_records_are_what_they_were_in_the_other_log(log: EventLog, tmp_path: Path) -> None:
    source = open_log(str(tmp_path / "source"))
    await source.append([record("a\0", key="u:ä", payload=bytes(range(256))), record("b", kind="other"), record("c")])
    everything_there = await everything(source)
    await log.restore(everything_there[:2])
    await log.restore(everything_there[2:])
    assert await everything(log) == everything_there
    assert await log.end() == await source.end()
    await source.close()


async def test_a_restored_log_goes_on_after_its_records_and_knows_their_ids(log: EventLog) -> None:
    await log.restore([LoggedRecord(7, partition_of("u:1"), 5_000, "user-event", "u:1", "a", 1_000, b"x", "")])
    repeat, new = await log.append([record("a"), record("b")])
    assert (repeat.offset, repeat.duplicate) == (7, True)
    assert new.offset == 8


async def test_offsets_that_a_restored_log_never_had_are_passed_over_and_those_before_it_are_forgotten(
    log: EventLog,
) -> None:
    await log.restore(
        [LoggedRecord(o, partition_of("u:1"), o, "user-event", "u:1", str(o), 1, b"", "") for o in (5, 6, 9)]
    )
    assert [one.offset for one in await log.read(0)] == [5, 6, 9]
    assert [one.offset for after in (4, 5, 6, 7, 8) for one in await log.read(after, limit=1)] == [5, 6, 9, 9, 9]
    assert not await log.wait(9, timeout_s=0.01)
    with pytest.raises(TrimmedError, match="forgotten the records 3 to 4, which a reader that stands at 2"):
        await log.read(2)


async def test_a_log_that_is_further_refuses_to_be_restored_and_stays_as_it_was(log: EventLog) -> None:
    await log.append([record("a"), record("b")])
    (_, second) = await everything(log)
    with pytest.raises(FailedPreconditionError, match="record 2 cannot be restored into a log that ends at 2"):
        await log.restore([second])
    await log.append([record("c")])
    assert [one.event_id for one in await everything(log)] == ["a", "b", "c"]


async def test_two_processes_append_at_once_and_every_offset_is_given_once(place: Place, log: EventLog) -> None:
    with place.process("append-some", "p", "60") as one, place.process("append-some", "q", "60") as two:
        outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in (one, two)))
    offsets = [int(line) for output, _ in outputs for line in output.split()]
    found = await everything(log)
    assert sorted(offsets) == [one.offset for one in found]
    assert Counter(one.event_id for one in found) == Counter(f"{p}-{n}" for p in "pq" for n in range(60))


async def test_two_processes_that_append_the_same_ids_keep_each_once(place: Place, log: EventLog) -> None:
    with place.process("append-some", "p", "80") as one, place.process("append-some", "p", "80") as two:
        outputs = await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in (one, two)))
    found = await everything(log)
    assert [one.event_id for one in found] == [f"p-{n}" for n in range(80)]
    assert [output.split() for output, _ in outputs] == [[str(one.offset) for one in found]] * 2


async def test_a_follower_of_two_processes_that_append_hard_sees_everything_in_order_and_once(
    place: Place, log: EventLog
) -> None:
    with (
        place.process("follow", "6000") as follower,
        place.process("append-hard", "p", "3000") as one,
        place.process("append-hard", "q", "3000") as two,
    ):
        seen, _ = await asyncio.to_thread(follower.communicate)
        await asyncio.gather(*(asyncio.to_thread(process.communicate) for process in (one, two)))
    found = await everything(log)
    assert seen.split()[1:] == [one.event_id for one in found]
    assert [one.offset for one in found] == list(range(1, 6001))


async def test_a_reader_in_another_process_always_sees_a_prefix(place: Place, log: EventLog) -> None:
    with place.process("follow", "150") as follower, place.process("append-some", "p", "50") as other:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "ready\n"
        for number in range(50):
            await asyncio.gather(*(log.append([record(f"own-{number}-{twin}")]) for twin in range(2)))
        seen, _ = await asyncio.to_thread(follower.communicate)
        await asyncio.to_thread(other.communicate)
    assert seen.split() == [one.event_id for one in await everything(log)]


async def test_what_was_acknowledged_survives_sigkill_and_is_there_once(place: Place, log: EventLog) -> None:
    moments = random.Random(7)
    acknowledged: list[str] = []
    for number in range(ROUNDS[place.backend]):
        with place.process("append-for-ever", f"round{number}", str(number)) as process:
            assert process.stdout is not None
            acknowledged += [process.stdout.readline().strip() for _ in range(moments.randint(1, 200))]
            process.kill()
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
            assert process.wait() == -9
    found = Counter(one.event_id for one in await everything(log))
    assert len(acknowledged) > ROUNDS[place.backend]
    assert set(acknowledged) <= set(found)
    assert set(found.values()) == {1}
