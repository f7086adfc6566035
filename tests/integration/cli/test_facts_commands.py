"""Dated facts in a running suite, from the command line: what is said, and what it means for an item and a person."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from headrace.cli.main import app
from headrace.cli.suite import Suite
from headrace.runtime.clock import now_us
from headrace.v1.common_pb2 import DatedFact, EntityKind, Product, ProductDetail, UserEvent
from headrace.v1.feature_store_pb2 import GetUserStateRequest
from headrace.v1.ingest_pb2 import WriteFactsRequest, WriteProductsRequest, WriteUserEventsRequest

PRODUCT, VISITOR = EntityKind.ENTITY_KIND_PRODUCT, EntityKind.ENTITY_KIND_VISITOR


async def _ran(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(words), env={"COLUMNS": "200"})


def _view() -> UserEvent:
    event = UserEvent(event_type="detail-page-view", visitor_id="phone", user_id="ann")
    event.product_details.append(ProductDetail(product_id="lamp"))
    event.event_time.FromMicroseconds(now_us())
    return event


async def test_facts_are_shown_and_read_as_features_of_an_item_for_a_person(tmp_path: Path) -> None:
    facts = [
        DatedFact(fact_id="sale", entity_kind=PRODUCT, entity_id="lamp", name="discount", number=0.25, store_id="7"),
        DatedFact(fact_id="c", entity_kind=PRODUCT, entity_id="lamp", name="coupon", campaign_id="spring"),
        DatedFact(fact_id="m", entity_kind=VISITOR, entity_id="phone", name="campaign", campaign_id="spring"),
    ]
    facts[0].valid_until.FromJsonString("2126-01-01T00:00:00Z")
    async with Suite(tmp_path, services=("ingest", "feature-store")) as suite, suite.client() as client:
        lamp = Product(id="lamp", title="Lamp", categories=["Light"])
        await client.ingest.WriteProducts(WriteProductsRequest(products=[lamp]), timeout=20)
        # ann logs in on the phone, which is in the campaign
        await client.ingest.WriteUserEvents(WriteUserEventsRequest(events=[_view()]), timeout=20)
        written = await client.ingest.WriteFacts(WriteFactsRequest(facts=facts), timeout=20)
        end = written.results[-1].offset
        await client.feature_store.GetUserState(GetUserStateRequest(user_key="u:ann", min_offset=end), timeout=20)
        at = ("--data-dir", str(tmp_path))
        shown = await _ran("facts", "show", "--product", "lamp", *at)
        later = await _ran("facts", "show", "--product", "lamp", "--at", "2126-01-02", *at, "--json")
        before = await _ran("facts", "show", "--product", "lamp", "--known-at", "1", *at, "--json")
        none = await _ran("facts", "show", *at)
        both = await _ran("facts", "show", "--product", "lamp", "--user", "ann", *at)
        get = ("features", "get", "--item", "lamp", "--feature", "dated_facts", *at, "--json")
        of_whom = (("--user", "ann"), (), ("--user", "ann", "--store", "8"))
        got = [json.loads((await _ran(*get, *more)).stdout)["features"]["lamp"] for more in of_whom]
    assert "0.25" in shown.output
    assert "2126-01-01T00:00:00Z" in shown.output
    assert _ids(later) == ["c"]
    assert _ids(before) == []
    assert (none.exit_code, both.exit_code) == (2, 2)
    assert [list(values.values()) for values in got] == [[0, 0.25, 1, 1], [0, 0.25, 0, 0], [0, 0, 1, 1]]


def _ids(shown: Result) -> list[str]:
    answer: dict[str, Any] = json.loads(shown.stdout)
    return [fact["fact_id"] for fact in answer.get("facts", [])]
