"""A view added later is folded from the log beside the serving state, joins it, and survives a kill in the middle."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from headrace.cli.suite import Suite
from headrace.feature_store.__main__ import main
from headrace.feature_store.view_registry import register
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.v1 import common_pb2, log_pb2
from headrace.v1 import feature_store_pb2 as pb

Make = Callable[..., Record]

VIEW, BUY = "detail-page-view", "purchase-complete"
LOOKS = WindowedView("looks", "item", (VIEW,), ("30d",), channels=(common_pb2.CHANNEL_STORE,))
SHELF = WindowedView("shelf", "category", (VIEW, BUY), ("30d",))
ITEMS = 20
LIVE, BACK_FILLING = pb.FEATURE_VIEW_STATE_LIVE, pb.FEATURE_VIEW_STATE_BACK_FILLING


def _records(event: Make, product: Make, first: int, count: int) -> list[Record]:
    chance = np.random.default_rng(first)
    records = [product(number, minutes=first, price=float(first + 1)) for number in range(5)]
    for number in range(first, first + count):
        channel = int(chance.choice([common_pb2.CHANNEL_WEB, common_pb2.CHANNEL_STORE]))
        basket = chance.choice(ITEMS, 3, replace=False).tolist()
        kind = str(chance.choice([VIEW, BUY]))
        records.append(event(number, number / 10, basket, kind, user=f"u:{chance.integers(5)}", channel=channel))
    return records


async def _read(stub, offset: int, *features: str) -> list[list[float]]:
    ordinals = np.arange(ITEMS, dtype="<u4").tobytes()
    request = pb.GetOnlineFeaturesRequest(item_ordinals=ordinals, features=features, min_offset=offset)
    matrix = (await stub.GetOnlineFeatures(request, timeout=20)).item_features
    return np.frombuffer(matrix.values, "<f4").reshape(matrix.rows, matrix.columns).tolist()


async def _view(stub, name: str) -> pb.FeatureView:
    views = (await stub.ListFeatureViews(pb.ListFeatureViewsRequest())).feature_views
    return next(view for view in views if view.name == name)


async def _wait_until_live(stub, name: str) -> None:
    async with asyncio.timeout(60):
        while (await _view(stub, name)).state != LIVE:
            pass


def _recount(records: list[Record], kinds: set[str], of_store: bool) -> list[int]:
    counts = [0] * ITEMS
    for record in records:
        if record.kind != "user-event":
            continue
        logged = log_pb2.LoggedUserEvent.FromString(record.payload)
        is_of_store = logged.event.channel == common_pb2.CHANNEL_STORE
        if logged.event.event_type in kinds and (is_of_store or not of_store):
            for ordinal in logged.item_ordinals:
                counts[ordinal] += 1
    return counts


async def test_a_view_added_later_joins_while_the_log_grows(
    serve, event_log: SqliteEventLog, event: Make, product: Make
) -> None:
    records = _records(event, product, 0, 400)
    await event_log.append(records)
    end = (await event_log.end())[0]
    async with serve() as stub:
        await _read(stub, end, "price")
    async with serve(views=(LOOKS, SHELF), read_limit=7) as stub:
        while (await _view(stub, "looks")).state != LIVE:
            records += (more := _records(event, product, len(records) + 1_000, 3))
            end = (await event_log.append(more))[-1].offset
        found = await _read(stub, end, "looks", "shelf")
    assert [row[0] for row in found] == _recount(records, {VIEW}, of_store=True)
    async with serve(views=(LOOKS, SHELF)) as stub:
        # what joined is in the snapshot: nothing is folded again
        assert (await _view(stub, "looks")).state == LIVE
        assert await _read(stub, end, "looks", "shelf") == found
    async with serve() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _read(stub, end, "looks")
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_view_that_is_not_live_yet_is_not_read(
    serve, event_log: SqliteEventLog, event: Make, product: Make
) -> None:
    await event_log.append(_records(event, product, 0, 600))
    end = (await event_log.end())[0]
    async with serve() as stub:
        await _read(stub, end, "price")
    async with serve(views=(LOOKS,), read_limit=1) as stub:
        view = await _view(stub, "looks")
        assert view.state == BACK_FILLING
        assert view.back_fill_offset < view.back_fill_end_offset == end
        # all else is served meanwhile
        await _read(stub, end, "price")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _read(stub, end, "looks")
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "still being back-filled: looks" in raised.value.details()


def _module(folder: Path) -> dict[str, str]:
    """The environment of a feature store that is to count LOOKS too."""
    (folder / "kill_test_views.py").write_text(
        "from headrace.feature_store.windowed_view import WindowedView\n"
        f"VIEWS = (WindowedView('looks', 'item', ('{VIEW}',), ('30d',), channels=(4,)),)\n"
    )
    path = os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))
    return {"HEADRACE_FEATURE_STORE_VIEWS": "kill_test_views", "PYTHONPATH": path}


async def test_a_kill_during_the_back_fill_loses_and_doubles_nothing(
    serve, event_log: SqliteEventLog, event: Make, product: Make, tmp_path: Path
) -> None:
    records = _records(event, product, 0, 6_000)
    await event_log.append(records)
    end = (await event_log.end())[0]
    async with serve(row_sample_rate=0) as stub:
        await _read(stub, end, "price")
    with_view = {"HEADRACE_FEATURE_STORE_ROW_SAMPLE_RATE": "0", **_module(tmp_path)}
    slow = {**with_view, "HEADRACE_FEATURE_STORE_READ_LIMIT": "1", "HEADRACE_FEATURE_STORE_SNAPSHOT_EVERY_S": "0.2"}
    async with Suite(tmp_path, services=("feature-store",), environment=slow) as suite, suite.client() as client:
        # the state that is served goes on, and is in snapshots without the view
        more = _records(event, product, 10_000, 60)
        end = (await event_log.append(more))[-1].offset
        await _read(client.feature_store, end, "price")
        assert 0 < (await _view(client.feature_store, "looks")).back_fill_offset < end
        await suite.kill("feature-store")
    async with Suite(tmp_path, services=("feature-store",), environment=with_view) as suite, suite.client() as client:
        await _wait_until_live(client.feature_store, "looks")
        found = await _read(client.feature_store, end, "looks")
    assert [row[0] for row in found] == _recount([*records, *more], {VIEW}, of_store=True)


def test_a_module_or_a_definition_that_does_not_fit_ends_the_process_with_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HEADRACE_FEATURE_STORE_VIEWS", "no_such_views")
    assert main() == 2
    assert "HEADRACE_FEATURE_STORE_VIEWS='no_such_views': ModuleNotFoundError" in capsys.readouterr().err
    monkeypatch.setenv("HEADRACE_FEATURE_STORE_VIEWS", _module(tmp_path)["HEADRACE_FEATURE_STORE_VIEWS"])
    monkeypatch.syspath_prepend(tmp_path)
    register(tmp_path / "feature-store" / "views.json", [replace(LOOKS, windows=("1h",))])
    assert main() == 2
    assert "looks@1: its definition changed" in capsys.readouterr().err
