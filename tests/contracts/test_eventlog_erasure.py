"""What every log promises whose records can be changed where they stand."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.runtime.eventlog import ErasableLog, LoggedRecord, Record, partition_of

open_log = runpy.run_path(str(Path(__file__).with_name("eventlog_worker.py")))["open_log"]


@pytest.fixture(params=["sqlite", "postgresql"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ErasableLog]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    opened = open_log(f"{tmp_path}|{url}")
    assert isinstance(opened, ErasableLog)
    yield opened
    await opened.close()


async def test_a_brokers_log_is_not_taken_for_one_that_can_be_changed(kafka_url: str, tmp_path: Path) -> None:
    log = open_log(f"{tmp_path}|{kafka_url}")
    assert not isinstance(log, ErasableLog)
    await log.close()


def record(number: int, key: str, payload: bytes = b"") -> Record:
    given = payload or f"what {key} did at {number}".encode()
    return Record("user-event", key, f"{key}-{number}", 1_000, given, "00-trace")


async def everything(log: ErasableLog) -> list[LoggedRecord]:
    return await log.read(0, limit=1_000_000)


async def test_only_the_records_of_the_named_keys_before_the_offset_are_emptied(log: ErasableLog) -> None:
    await log.append([record(number, f"u:{number % 3}") for number in range(9)])
    before = await everything(log)

    assert await log.erase(["u:1", "v:absent"], before_offset=6) == 2

    after = await everything(log)
    emptied = [one for one in after if one.kind == "erased"]
    assert [one.offset for one in emptied] == [2, 5]
    assert all((one.key, one.payload.strip(b"\0"), one.traceparent) == ("", b"", "") for one in emptied)
    assert {one.partition for one in emptied} == {partition_of("u:1")}
    assert [one for one in after if one.kind != "erased"] == [one for one in before if one.offset not in (2, 5)]


async def test_erasing_again_finds_nothing(log: ErasableLog) -> None:
    await log.append([record(number, "u:1") for number in range(3)])
    assert [await log.erase(["u:1"], 100), await log.erase(["u:1"], 100)] == [3, 0]


async def test_an_erased_event_id_is_free_again_and_offsets_go_on(log: ErasableLog) -> None:
    await log.append([record(1, "u:1")])
    await log.erase(["u:1"], 2)
    (again,) = await log.append([record(1, "u:1")])
    assert (again.offset, again.duplicate) == (2, False)


async def test_records_are_found_by_key_or_by_what_their_payload_holds(log: ErasableLog) -> None:
    await log.append([record(1, "u:1", b"\x00ann\xff"), record(2, "u:2", b"bob"), record(3, "u:3", b"joanna")])
    assert [one.offset for one in await log.find(keys=["u:2", "u:3"], before_offset=100)] == [2, 3]
    assert [one.offset for one in await log.find(text=b"ann", before_offset=100)] == [1, 3]
    assert [one.offset for one in await log.find(text=b"ann", after_offset=1, before_offset=3)] == []


async def test_a_payload_can_be_replaced(log: ErasableLog) -> None:
    await log.append([record(1, "u:1"), record(2, "u:2")])
    await log.rewrite({2: b"short"})
    first, second = await everything(log)
    assert (first.payload, second.payload) == (b"what u:1 did at 1", b"short")
    assert (second.key, second.event_id) == ("u:2", "u:2-2")


async def test_more_records_than_are_changed_at_once_go_while_others_come(log: ErasableLog) -> None:
    await log.append([record(number, f"u:{number % 2}") for number in range(5_000)])

    async def append_more() -> None:
        for number in range(5_000, 5_050):
            await log.append([record(number, "u:1")])

    count, _ = await asyncio.gather(log.erase(["u:1"], 5_001), append_more())

    kinds = [one.kind for one in await everything(log)]
    assert (count, kinds.count("erased"), len(kinds)) == (2_500, 2_500, 5_050)


async def test_nothing_of_the_erased_is_left_in_the_files_of_the_embedded_log(tmp_path: Path) -> None:
    log = open_log(f"{tmp_path}|")
    try:
        for start in range(0, 3_000, 100):
            batch = [record(number, f"u:person-{number % 30:02}") for number in range(start, start + 100)]
            await log.append(batch)
        for person in (7, 11, 19):
            await log.erase([f"u:person-{person:02}"], 5_000)
            assert (tmp_path / "events.db-wal").stat().st_size == 0
        held = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        found = {number: held.count(b"person-%02d" % number) for number in range(30)}
        assert [number for number, count in found.items() if not count] == [7, 11, 19]
    finally:
        await log.close()
