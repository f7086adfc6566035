"""A shop is backed up while it runs, put back, and moved to a server: it goes on as if nothing had been."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headrace.cli.client import Client
from headrace.cli.main import app
from headrace.cli.sending import Sender
from headrace.cli.suite import Suite
from headrace.datasets.source import SIMULATED_SHOP, find
from headrace.feature_store.fold import State
from headrace.feature_store.records import fact_of
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1.common_pb2 import UserEvent
from headrace.v1.feature_store_pb2 import GetFeatureStoreStatusRequest, GetFeatureStoreStatusResponse
from headrace.v1.index_pb2 import GetIndexStatsRequest
from headrace.v1.ingest_pb2 import GetIngestStatusRequest
from headrace.v1.trainer_pb2 import GetTrainingStatusRequest

Eventually = Callable[..., Awaitable[None]]

SERVICES = ("ingest", "feature-store", "trainer", "index")
FIRST, LATER = 2_000, 1_000


async def told(*arguments: str) -> Result:
    answer = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    assert answer.exit_code == 0, answer.output
    return answer


def events() -> list[UserEvent]:
    return list(islice((event for batch in find(SIMULATED_SHOP).events() for event in batch), FIRST + LATER))


async def fold_of(client: Client) -> GetFeatureStoreStatusResponse:
    return await client.feature_store.GetFeatureStoreStatus(GetFeatureStoreStatusRequest(with_digest=True), timeout=20)


async def is_learned(client: Client) -> bool:
    """Whether all stages are at the end of the log, and the index holds every vector that was sent."""
    end = (await client.ingest.GetIngestStatus(GetIngestStatusRequest(), timeout=20)).log_end_offset
    trained = await client.trainer.GetTrainingStatus(GetTrainingStatusRequest(with_digest=True), timeout=20)
    spaces = (await client.index.GetIndexStats(GetIndexStatsRequest(with_digest=True), timeout=20)).spaces
    folded = await fold_of(client)
    vectors = [space.digest for space in spaces if space.active]
    return folded.offset == trained.offset == end and vectors == [trained.vectors_digest]


async def recounted(common: CommonSettings) -> str:
    """The digest of one uninterrupted fold over the log."""
    log, state = open_event_log(common), State()
    for record in await log.read(0, limit=1_000_000):
        state.apply(fact_of(record))
    await log.close()
    return state.copy().digest()


async def ids_in(common: CommonSettings) -> list[str]:
    log = open_event_log(common)
    ids = [record.event_id for record in await log.read(0, limit=1_000_000)]
    await log.close()
    return ids


@pytest.mark.timeout(300)
async def test_a_shop_is_backed_up_put_back_and_moved(
    tmp_path: Path, postgres_url: str, eventually: Eventually
) -> None:
    shop, kept, restored = tmp_path / "shop", tmp_path / "kept", tmp_path / "restored"
    products = [product for batch in find(SIMULATED_SHOP).products() for product in batch]
    stream = events()
    async with Suite(shop, services=SERVICES) as suite, suite.client() as client:
        async with Sender(client.ingest) as sender:
            await sender.write_products(products)
            await sender.send(stream[:FIRST])
        acknowledged = await ids_in(CommonSettings(data_dir=shop))
        async with Sender(client.ingest, batch=20) as sender:
            backing_up = asyncio.create_task(told("backup", str(kept), "--data-dir", str(shop)))
            await sender.send(stream[FIRST:])
            await backing_up
        await eventually(lambda: is_learned(client), 60)
        digest = (await fold_of(client)).state_digest

    await told("restore", str(kept), "--data-dir", str(restored))
    ids = await ids_in(CommonSettings(data_dir=restored))
    assert ids[: len(acknowledged)] == acknowledged
    async with Suite(restored, services=SERVICES) as suite, suite.client() as client:
        async with Sender(client.ingest) as sender:
            await sender.send(stream)
        await eventually(lambda: is_learned(client), 60)
        assert (await fold_of(client)).state_digest == await recounted(CommonSettings(data_dir=restored))
        assert sender.counts.duplicates >= len(acknowledged) - len(products)

    urls = ("--event-log", postgres_url, "--catalogue", postgres_url, "--registry", postgres_url)
    moved = json.loads((await told("move", *urls, "--data-dir", str(shop))).stdout)
    on_server = Suite(shop, services=SERVICES, environment=moved["environment"])
    async with on_server as suite, suite.client() as client, Sender(client.ingest) as sender:
        await eventually(lambda: is_learned(client), 60)
        await sender.send(stream)
        await sender.flush()
        assert sender.counts.accepted == 0
        assert (await fold_of(client)).state_digest == digest
    embedded, server = CommonSettings(data_dir=shop), CommonSettings(data_dir=shop, event_log_url=postgres_url)
    assert await ids_in(server) == await ids_in(embedded)
