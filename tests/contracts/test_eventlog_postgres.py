"""What the event log in PostgreSQL does beyond the contract: late commits, a server that dies, notices, retention."""

from __future__ import annotations

import asyncio
import os
import random
import runpy
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from benchmarks.postgres_server import PostgresServer
from headrace.runtime.errors import UnavailableError
from headrace.runtime.eventlog import EventLog, LoggedRecord, Record
from headrace.runtime.eventlog import postgres as postgres_module
from headrace.runtime.eventlog.postgres import PostgresEventLog
from headrace.runtime.eventlog.postgres_connection import connect

_worker = runpy.run_path(str(Path(__file__).with_name("eventlog_worker.py")))
record = _worker["record"]

# more of them where there is time: TEST_POSTGRES_KILLS=500
KILLS = int(os.environ.get("TEST_POSTGRES_KILLS", "20"))
WRITERS = 4


@pytest.fixture
async def log(postgres_url: str) -> AsyncIterator[EventLog]:
    opened = PostgresEventLog(postgres_url)
    yield opened
    await opened.close()


async def everything(log: EventLog) -> list[LoggedRecord]:
    return await log.read(0, limit=1_000_000)


async def test_a_writer_that_commits_late_holds_the_others_back_so_that_no_reader_passes_it_by(
    log: EventLog, postgres_url: str
) -> None:
    await log.append([record("first")])
    async with await psycopg.AsyncConnection.connect(postgres_url) as slow:
        await slow.execute('SELECT "offset" FROM event_log_head FOR UPDATE')
        await slow.execute("INSERT INTO event_log_records VALUES (2, 0, 0, 'k', 'k', 'late', 0, '', '')")
        await slow.execute('UPDATE event_log_head SET "offset" = 2')
        fast = asyncio.create_task(log.append([record("fast")]))
        await until_blocked(slow)
        assert [one.event_id for one in await everything(log)] == ["first"]
        assert not await log.wait(1, 0.01)
        await slow.commit()
    assert (await fast)[0].offset == 3
    assert [one.event_id for one in await log.read(1)] == ["late", "fast"]


async def until_blocked(database: psycopg.AsyncConnection) -> None:
    """Returns when another connection waits for this one."""
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    while True:
        found = await database.execute(blocked)
        if await found.fetchone() != (0,):
            return
        await asyncio.sleep(0.005)


async def test_many_processes_that_make_the_tables_at_once_make_them_once(postgres_url: str) -> None:
    logs = [PostgresEventLog(postgres_url) for _ in range(8)]
    answers = await asyncio.gather(*(log.append([record(str(number))]) for number, log in enumerate(logs)))
    assert sorted(placed.offset for (placed,) in answers) == list(range(1, 9))
    await asyncio.gather(*(log.close() for log in logs))


async def test_an_idle_follower_is_woken_by_the_append_and_not_by_looking_again(
    log: EventLog, postgres_url: str
) -> None:
    other = PostgresEventLog(postgres_url)
    woken_after_s: list[float] = []
    for number in range(15):
        waiting = asyncio.create_task(log.wait(number, timeout_s=60))
        await asyncio.sleep(0.02)
        (placed,) = await other.append([record(str(number))])
        begun = time.perf_counter()
        assert await waiting
        woken_after_s.append(time.perf_counter() - begun)
        assert placed.offset == number + 1
    await other.close()
    assert statistics.median(woken_after_s) < 0.1


async def test_a_follower_whose_listening_was_cut_off_is_woken_again(log: EventLog, postgres_url: str) -> None:
    assert not await log.wait(0, 0.05)
    await cut_off_all(postgres_url)
    waiting = asyncio.create_task(log.wait(0, timeout_s=60))
    other = PostgresEventLog(postgres_url)
    await other.append([record("a")])
    await other.close()
    assert await asyncio.wait_for(waiting, 30)


async def test_a_connection_lost_in_the_middle_of_an_append_is_told_and_the_retry_goes_through(
    log: EventLog, postgres_url: str
) -> None:
    await log.append([record("a")])
    async with await psycopg.AsyncConnection.connect(postgres_url) as other:
        await other.execute("SELECT FROM event_log_head FOR UPDATE")
        appending = asyncio.create_task(log.append([record("b")]))
        await until_blocked(other)
        await cut_off_all(postgres_url)
        with pytest.raises(UnavailableError) as lost:
            await appending
    assert lost.value.retry_after_s
    assert not (await log.append([record("b")]))[0].duplicate
    assert [one.event_id for one in await everything(log)] == ["a", "b"]


async def cut_off_all(url: str) -> None:
    """Ends every connection of the event log to this database."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'headrace-event-log'"
        )


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    log = PostgresEventLog("postgresql://me:secret@127.0.0.1:1/shop")
    with pytest.raises(UnavailableError, match=r"event log shop at 127\.0\.0\.1") as refused:
        await log.append([record("a")])
    assert "secret" not in str(refused.value)
    assert refused.value.retry_after_s
    await log.close()


async def test_a_server_may_be_told_to_commit_without_syncing_but_the_log_is_not(postgres_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
        name = postgres_url.rpartition("/")[2]
        await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    async with await psycopg.AsyncConnection.connect(postgres_url) as plain:
        assert await (await plain.execute("SHOW synchronous_commit")).fetchone() == ("off",)
    assert await session_setting(postgres_url, "synchronous_commit") == "on"


async def session_setting(url: str, name: str) -> str:
    async with await connect(url) as database:
        ((value,),) = await (await database.execute("SELECT current_setting(%s)", (name,))).fetchall()
    return str(value)


async def test_trimming_goes_on_over_many_transactions_and_forgets_the_ids_too(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_TRIM_LIMIT", 100)
    times_us = iter([1_000, 2_000, 2_000, 3_000])
    monkeypatch.setattr(postgres_module, "now_us", lambda: next(times_us))
    old = [record(f"old-{number}", key=f"u:{number}") for number in range(550)]
    await log.append(old)
    await log.append([record("new-0")])
    await log.append([record("new-1")])
    assert await log.trim(2_000) == 550
    assert [one.event_id for one in await everything(log)] == ["new-0", "new-1"]
    assert await log.trim(2_000) == 0
    again = await log.append([record("old-7"), record("new-1")])
    assert [placed.duplicate for placed in again] == [False, True]
    assert again[0].offset == 553


async def test_append_times_never_go_back_where_another_hosts_clock_is_behind(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    times_us = iter([5_000, 3_000, 6_000])
    monkeypatch.setattr(postgres_module, "now_us", lambda: next(times_us))
    for event_id in "abc":
        await log.append([record(event_id)])
    assert [one.append_time_us for one in await everything(log)] == [5_000, 5_000, 6_000]
    assert await log.trim(6_000) == 2


async def test_a_reader_uses_the_index_of_the_offset_also_before_the_planner_knows_the_tables(
    log: EventLog, postgres_url: str
) -> None:
    await log.append([record(str(number), key=f"u:{number}") for number in range(5_000)])
    async with await connect(postgres_url) as database:
        query = 'EXPLAIN SELECT payload FROM event_log_records WHERE "offset" > 4000 ORDER BY "offset" LIMIT 1000000'
        plan = "\n".join(line for (line,) in await (await database.execute(query)).fetchall())
    assert "Merge Append" in plan
    assert plan.count("Index Scan") == 8


@pytest.mark.timeout(60 + 3 * KILLS)
async def test_a_server_killed_at_random_keeps_what_it_acknowledged_once_and_in_one_order(
    own_postgres: PostgresServer,
) -> None:
    url = own_postgres.new_database()
    stop, follower_stop = asyncio.Event(), asyncio.Event()
    logs = [PostgresEventLog(url) for _ in range(WRITERS)]
    writers = [asyncio.create_task(write_until(stop, log, f"w{number}", number)) for number, log in enumerate(logs)]
    tail = PostgresEventLog(url)
    following = asyncio.create_task(follow_until(follower_stop, tail))
    moments = random.Random(11)
    for _ in range(KILLS):
        await asyncio.sleep(moments.uniform(0.02, 0.25))
        own_postgres.kill()
        await asyncio.to_thread(own_postgres.start)
    stop.set()
    acknowledged = {event_id: offset for part in await asyncio.gather(*writers) for event_id, offset in part.items()}
    records = await everything(tail)
    follower_stop.set()
    seen = await following
    for log in (*logs, tail):
        await log.close()

    assert len(acknowledged) > 20 * KILLS
    assert [one.offset for one in records] == list(range(1, len(records) + 1))
    assert {one.event_id: one.offset for one in records}.items() >= acknowledged.items()
    assert len({one.event_id for one in records}) == len(records)
    assert seen == [one.event_id for one in records]


async def write_until(stop: asyncio.Event, log: EventLog, name: str, seed: int) -> dict[str, int]:
    """Appends batches, each until it is acknowledged; the offsets that were told."""
    sizes, offsets = random.Random(seed), dict[str, int]()
    while not stop.is_set():
        batch = [record(f"{name}-{len(offsets) + extra}", key=f"u:{extra}") for extra in range(sizes.randint(1, 20))]
        placed = await appended(log, batch)
        offsets |= {one.event_id: place.offset for one, place in zip(batch, placed, strict=True)}
    return offsets


async def appended(log: EventLog, batch: list[Record]) -> list[postgres_module.Appended]:
    while True:
        try:
            return await log.append(batch)
        except UnavailableError:
            await asyncio.sleep(0.01)


async def follow_until(stop: asyncio.Event, log: EventLog) -> list[str]:
    """The ids in the order seen, read to the end once more after `stop`."""
    seen: list[str] = []
    after = 0
    while True:
        is_last = stop.is_set()
        try:
            found = await log.read(after)
            if not found and not is_last:
                await log.wait(after, 0.05)
        except UnavailableError:
            # killed again and again before it could answer: a reader asks again
            continue
        seen += [one.event_id for one in found]
        after = found[-1].offset if found else after
        if not found and is_last:
            return seen
