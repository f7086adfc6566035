"""A killed feature store comes back as if nothing had happened."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.feature_store.__main__ import compose
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.runtime.eventlog import EventLog, Record
from headrace.runtime.settings import CommonSettings
from headrace.v1 import feature_store_pb2 as pb

Make = Callable[..., Record]


def _records(event: Make, product: Make, first: int, count: int) -> list[Record]:
    chance = np.random.default_rng(first)
    records = [product(number, minutes=first, price=float(first + 1)) for number in range(5)]
    for number in range(first, first + count):
        basket = chance.choice(20, 3, replace=False).tolist()
        kind = str(chance.choice(["detail-page-view", "add-to-cart", "purchase-complete"]))
        records.append(event(number, first + number * 7.0, basket, kind, user=f"u:{chance.integers(5)}"))
    return records


async def _status(stub, offset: int) -> pb.GetFeatureStoreStatusResponse:
    await stub.GetUserState(pb.GetUserStateRequest(user_key="u:nobody", min_offset=offset), timeout=20)
    return await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(with_digest=True))


async def _rows(stub, until: int) -> list[tuple[bytes, ...]]:
    request = pb.GetTrainingRowsRequest(until_offset=until)
    messages = [message async for message in stub.GetTrainingRows(request)]
    names = ("group_offsets", "group_sizes", "item_ordinals", "labels", "weights", "group_times_us", "history_lengths")
    columns = [b"".join(getattr(message, name) for message in messages) for name in names]
    return [*columns, b"".join(message.features.values for message in messages)]


async def test_a_killed_store_folds_the_tail_to_the_same_state(
    serve, event_log: EventLog, event: Make, product: Make, tmp_path: Path
) -> None:
    folder, killed = tmp_path / "feature-store", tmp_path / "as-it-was-killed"
    await event_log.append(_records(event, product, 0, 60))
    async with serve(snapshot_every_s=0.05, row_chunk_bytes=1 << 16) as stub:
        middle = (await event_log.end())[0]
        while (await _status(stub, middle)).snapshot_offset < middle:
            pass
        await event_log.append(_records(event, product, 1_000, 40))
        end = (await event_log.end())[0]
        await _status(stub, end)
        # what a SIGKILL leaves: the files of this moment, without the shutdown's snapshot
        shutil.copytree(folder, killed)
    shutil.rmtree(folder)
    killed.rename(folder)
    for path in (folder / "snapshots").glob(f"state-{end:020d}"):
        path.unlink()
    async with serve() as stub:
        again, rows = await _status(stub, end), await _rows(stub, end)
        assert again.snapshot_offset in (0, middle) or again.snapshot_offset < end
    shutil.rmtree(folder)
    async with serve() as stub:
        straight, expected = await _status(stub, end), await _rows(stub, end)
    assert again.state_digest == straight.state_digest
    assert dict(again.events_by_type) == dict(straight.events_by_type)
    assert rows == expected


async def test_a_store_that_was_asked_to_stop_starts_from_its_last_snapshot(
    serve, event_log: EventLog, event: Make, product: Make
) -> None:
    await event_log.append(_records(event, product, 0, 30))
    end = (await event_log.end())[0]
    async with serve() as stub:
        before = await _status(stub, end)
    async with serve() as stub:
        after = await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(with_digest=True))
    assert (after.offset, after.snapshot_offset) == (end, end)
    assert after.state_digest == before.state_digest


async def test_rows_beyond_the_memory_go_to_files_and_are_served_from_there(
    serve, event_log: EventLog, event: Make, product: Make, tmp_path: Path
) -> None:
    async with serve(row_chunk_bytes=1 << 16, read_limit=20, snapshot_every_s=1000) as stub:
        await event_log.append(_records(event, product, 0, 120))
        end = (await event_log.end())[0]
        await _status(stub, end)
        from_files = await _rows(stub, end)
        files = list((tmp_path / "feature-store" / "rows").glob("rows-*"))
    shutil.rmtree(tmp_path / "feature-store")
    async with serve(snapshot_every_s=1000) as stub:
        await _status(stub, end)
        from_memory = await _rows(stub, end)
    assert files
    assert from_files == from_memory


async def test_a_store_whose_next_record_was_forgotten_stops_instead_of_passing_over_it(
    serve, event_log: EventLog, event: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await event_log.append([event(1, 1.0, [0]), event(2, 2.0, [0])])
    async with serve() as stub:
        await _status(stub, 2)
    await event_log.append([event(3, 3.0, [0]), event(4, 4.0, [0])])
    await event_log.trim((await event_log.end())[1] + 1)
    settings, common = FeatureStoreSettings(port=0), CommonSettings(data_dir=tmp_path)
    async with compose(settings, common) as parts:
        await asyncio.wait_for(parts.background.failed.wait(), 20)
    (died,) = [one for one in caplog.records if one.message == "background_task_died"]
    assert "forgotten the records 3 to 3, which a reader that stands at 2 needs" in str(died.exc_info)


async def test_a_new_store_over_a_log_that_has_forgotten_its_beginning_says_so(
    serve, event_log: EventLog, event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    await event_log.append([event(1, 1.0, [0]), event(2, 2.0, [0])])
    await event_log.trim((await event_log.end())[1] + 1)
    async with serve() as stub:
        assert (await _status(stub, 2)).events_folded == 1
    assert [one.oldest_offset for one in caplog.records if one.message == "log_begins_late"] == [2]
