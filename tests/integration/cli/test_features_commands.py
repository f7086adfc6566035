"""`headrace features` against a feature store of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import polars as pl
from typer.testing import CliRunner, Result

from benchmarks.features_data import fill_log
from headrace.cli.main import app
from headrace.cli.suite import Suite
from headrace.v1.feature_store_pb2 import GetUserStateRequest

WIDE = {"COLUMNS": "200"}


async def _ran(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=WIDE)


async def test_views_are_listed_values_read_and_drift_told(tmp_path: Path) -> None:
    end = await fill_log(tmp_path, products=20, users=10, events=300, seed=1)
    async with Suite(tmp_path, services=("feature-store",)) as suite, suite.client() as client:
        await client.feature_store.GetUserState(GetUserStateRequest(user_key="u:1", min_offset=end), timeout=20)
        at = ("--data-dir", str(tmp_path))
        listed = await _ran("features", "list", *at)
        got = await _ran("features", "get", "--user", "1", "--item", "p3", "--feature", "price", *at, "--json")
        shown = await _ran("features", "get", "--visitor", "9", "--feature", "user_windows", *at)
        drift = await _ran("features", "drift", *at)
        faulty = await _ran("features", "get", "--item", "p3", "--feature", "colour", *at)
        both = await _ran("features", "get", "--user", "1", "--visitor", "2", *at)
        nowhere = await _ran("features", "get", "--channel", "moon", *at)
    assert [one.exit_code for one in (listed, got, shown, drift)] == [0, 0, 0, 0], got.output
    for word in ("item_windows", "5m 1h 1d 7d", "live, by rankers", "category"):
        assert word in listed.output
    answer = json.loads(got.output)
    assert answer["features"]["p3"]["item_document:price"] > 0
    assert answer["offset"] == end
    assert "user_windows:user_views_7d" in shown.output
    assert "stability" in drift.output
    assert [one.exit_code for one in (faulty, both, nowhere)] == [2, 2, 2]


async def test_tables_are_joined_as_of_their_time(tmp_path: Path) -> None:
    labels, features, out = (tmp_path / f"{name}.parquet" for name in ("labels", "features", "out"))
    pl.DataFrame({"user": [1, 2], "at": [5, 5]}).write_parquet(labels)
    pl.DataFrame({"user": [1, 1], "at": [4, 6], "views": [8, 9]}).write_parquet(features)
    files = ("--labels", str(labels), "--features", str(features), "--out", str(out))
    joined = await _ran("features", "join", *files, "--entity", "user", "--time", "at", "--json")
    assert json.loads(joined.output) | {"out": ""} == {
        "labels": 2,
        "with_features": 1,
        "without_features": 1,
        "out": "",
    }
    assert pl.read_parquet(out)["views"].to_list() == [8, None]
    refused = await _ran("features", "join", *files, "--entity", "visitor", "--time", "at")
    assert refused.exit_code == 2
