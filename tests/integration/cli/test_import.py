"""`headrace import` against a real door: nothing twice, nothing lost, killed in the middle too."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from headrace.cli.main import app
from headrace.ingest.__main__ import compose
from headrace.ingest.settings import IngestSettings
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1.common_pb2 import Product
from headrace.v1.log_pb2 import LoggedDatedFact, LoggedUserEvent, ProductChange

EVENTS = """
kind = "events"
skip = { event = ["draft"] }
[fields]
event_type = { column = "event", map = { sale = "purchase-complete" } }
user_id = "customer"
event_time = "ts"
product_id = "item"
quantity = "quantity"
"""


FACTS = """
kind = "facts"
[fields]
entity_kind = { value = "product" }
entity_id = "id"
name = { value = "discount" }
number = "off"
"""


@dataclass
class Shop:
    """A door in this process, and a folder for files."""

    address: str
    common: CommonSettings
    folder: Path

    def file(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def arguments(self, *arguments: str) -> list[str]:
        return ["import", *arguments, "--address", f"ingest={self.address}", "--rejects", str(self.folder / "rejects")]

    async def run(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        # in a thread: the command has an event loop of its own
        result = await asyncio.to_thread(CliRunner().invoke, app, [*self.arguments(*arguments), "--json"])
        assert result.stdout, result.stderr
        return result.exit_code, json.loads(result.stdout)

    def rejects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "rejects").read_text().splitlines()]

    async def logged(self, kind: str) -> list[bytes]:
        log = open_event_log(self.common)
        records = await log.read(0, limit=1_000_000, kinds=(kind,))
        await log.close()
        return [record.payload for record in records]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    common = CommonSettings(data_dir=tmp_path / "data")
    settings = IngestSettings(port=0, drain_s=0)
    async with compose(settings, common) as parts, running(parts, settings) as server:
        yield Shop(server.address, common, tmp_path)


async def test_a_files_rows_are_events_and_again_they_add_nothing(shop: Shop) -> None:
    rows = "event,customer,ts,item,quantity\nsale,7,2020-01-01,a,1\ndraft,8,2020-01-01,a,1\nsale,9,2020-01-02,b,2\n"
    file, mapping = shop.file("f.csv", rows), shop.file("m.toml", EVENTS)
    code, first = await shop.run("events", file, "--mapping", mapping)
    again, second = await shop.run("events", file, "--mapping", mapping)
    events = [LoggedUserEvent.FromString(payload).event for payload in await shop.logged("user-event")]
    assert (code, first["rows"], first["rows_skipped"], first["accepted"], first["duplicates"]) == (0, 3, 1, 2, 0)
    assert (again, second["accepted"], second["duplicates"], second["rejects"]) == (0, 0, 2, None)
    # only events of one person keep their order
    assert {event.user_id: event.product_details[0].product_id for event in events} == {"7": "a", "9": "b"}


async def test_rows_and_events_that_are_not_taken_are_accounted_for(shop: Shop) -> None:
    rows = "event,customer,ts,item,quantity\nsale,7,soon,a,x\nsale,7,1990-01-01,a,1\nsale,7,2020-01-01,a,1\n"
    code, done = await shop.run("events", shop.file("f.csv", rows), "--mapping", shop.file("m.toml", EVENTS))
    (reject,) = shop.rejects()
    assert (code, done["rows_rejected"], done["accepted"], done["refused"]) == (1, 1, 1, {"time": 1})
    assert reject["rows"] == [1]
    assert reject["content"] == {"event": "sale", "customer": "7", "ts": "soon", "item": "a", "quantity": "x"}
    assert [reason.split(":")[0] for reason in reject["reasons"]] == ["event_time", "quantity"]


async def test_products_and_facts_that_the_door_refuses_are_in_the_rejects(shop: Shop) -> None:
    products = shop.file("p.jsonl", '{"id": "a", "name": "A"}\n{"id": "b", "name": null}\n')
    mapping = shop.file("p.toml", 'kind = "products"\n[fields]\nid = "id"\ntitle = "name"\n')
    code, done = await shop.run("products", products, "--mapping", mapping)
    assert (code, done["accepted"], done["refused"]) == (1, 1, {"missing": 1})
    assert shop.rejects()[0]["reasons"] == ["title: must be given"]
    facts = shop.file("f.jsonl", '{"id": "a", "off": 0.5}\n{"id": "b", "off": 5}\n')
    code, done = await shop.run("facts", facts, "--mapping", shop.file("f.toml", FACTS))
    (reject,) = shop.rejects()
    assert (code, done["accepted"], done["refused"]) == (1, 1, {"value": 1})
    assert (reject["rows"], reject["reasons"]) == ([2], ["number: must be 0 .. 1 for discount, got 5.0"])
    changed = [ProductChange.FromString(payload).product for payload in await shop.logged("product-change")]
    assert changed == [Product(id="a", title="A")]
    (logged,) = [LoggedDatedFact.FromString(payload) for payload in await shop.logged("dated-fact")]
    assert (logged.fact.entity_id, logged.item_ordinal) == ("a", 0)


async def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(shop: Shop) -> None:
    file = shop.file("f.csv", "event,customer,ts,item,quantity\nsale,7,2020-01-01,a,1\n")
    code, done = await shop.run("events", file, "--mapping", shop.file("m.toml", EVENTS), "--dry-run")
    assert (code, [example["user_id"] for example in done["examples"]]) == (0, ["7"])
    assert await shop.logged("user-event") == []


async def test_one_can_go_on_at_a_row(shop: Shop) -> None:
    rows = "".join(f"sale,{number},2020-01-01,a,1\n" for number in range(10))
    file = shop.file("f.csv", "event,customer,ts,item,quantity\n" + rows)
    code, done = await shop.run("events", file, "--mapping", shop.file("m.toml", EVENTS), "--from-row", "8")
    assert (code, done["passed_over"], done["accepted"]) == (0, 7, 3)


async def test_a_file_that_breaks_off_is_taken_as_far_as_it_goes(shop: Shop) -> None:
    rows = "".join(f"sale,{number},2020-01-01,a{number * 7919 % 1000},1\n" for number in range(9_000))
    packed = gzip.compress(("event,customer,ts,item,quantity\n" + rows).encode())
    (shop.folder / "f.csv.gz").write_bytes(packed[: len(packed) // 2])
    arguments = ("events", str(shop.folder / "f.csv.gz"), "--mapping", shop.file("m.toml", EVENTS))
    result = await asyncio.to_thread(CliRunner().invoke, app, shop.arguments(*arguments))
    said = re.search(r"breaks off after row (\d+)", result.stderr)
    assert result.exit_code == 2
    assert said
    assert len(await shop.logged("user-event")) == int(said[1]) > 1_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["products", "f.csv", "--mapping", "m.toml"], "kind: must be 'products'"),
        (["events", "f.csv", "f.csv", "--mapping", "m.toml", "--from-row", "2"], "--from-row: is of one file, got 2"),
        (["events", "f.txt", "--mapping", "m.toml"], "must end in"),
        (["events", "f.csv", "--mapping", "m.toml", "--speed", "soon"], "--speed: must be max or a number"),
        (["events", "f.csv", "--mapping", "m.toml"], "fields.user_id: names the column 'customer', which f.csv lacks"),
    ],
)
async def test_a_wrong_use_is_exit_2(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(shop.folder)
    shop.file("f.csv", "event,ts,item,quantity\n")
    shop.file("m.toml", EVENTS)
    result = await asyncio.to_thread(CliRunner().invoke, app, shop.arguments(*arguments))
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


async def test_killed_in_the_middle_and_run_again_every_row_is_there_once(shop: Shop) -> None:
    """Rows of a basket far apart, equal rows numbered: the same events come out of the second run."""
    count = 20_000
    frame = pl.DataFrame(
        {
            "event": ["sale"] * count,
            "customer": [number % 400 for number in range(count)],
            "basket": [number // 40 * 10 + number % 10 for number in range(count)],
            "ts": ["2020-01-01"] * count,
            "item": [f"p{number % 3}" for number in range(count)],
            "quantity": [1] * count,
        }
    ).with_columns(customer=pl.col("basket") % 7)
    frame.write_parquet(shop.folder / "f.parquet")
    group = 'number_repeats = true\ngroup = { by = ["basket"], within_rows = 100 }\n'
    mapping = shop.file("m.toml", group + EVENTS.replace('skip = { event = ["draft"] }', ""))
    arguments = shop.arguments("events", str(shop.folder / "f.parquet"), "--mapping", mapping)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace.cli.main", *arguments, "--speed", "max", "--in-flight", "1",
        stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while len(await shop.logged("user-event")) < 500:
        assert time.monotonic() < deadline
        assert process.returncode is None
    process.kill()
    await process.wait()
    killed_at = len(await shop.logged("user-event"))
    code, done = await shop.run("events", str(shop.folder / "f.parquet"), "--mapping", mapping)
    events = [LoggedUserEvent.FromString(payload).event for payload in await shop.logged("user-event")]
    baskets = frame["basket"].n_unique()
    assert 0 < killed_at < baskets
    assert (code, done["rows"], done["accepted"], done["duplicates"]) == (0, count, baskets - killed_at, killed_at)
    assert sum(len(event.product_details) for event in events) == count
    assert len(events) == len({event.event_id for event in events}) == baskets
