"""Every service is killed at random moments while a shop streams through; at the end all of it is there, once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path

import pytest

from headrace.cli.client import Client
from headrace.cli.sending import Sender
from headrace.cli.suite import SERVICES, Suite
from headrace.datasets.source import SIMULATED_SHOP, find
from headrace.feature_store.fold import State
from headrace.feature_store.records import fact_of
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1.common_pb2 import Product, UserEvent
from headrace.v1.feature_store_pb2 import GetFeatureStoreStatusRequest, GetFeatureStoreStatusResponse
from headrace.v1.index_pb2 import GetIndexStatsRequest, SpaceStats
from headrace.v1.ingest_pb2 import GetIngestStatusRequest, ListDeadLettersRequest
from headrace.v1.log_pb2 import LoggedUserEvent
from headrace.v1.trainer_pb2 import GetTrainingStatusRequest, GetTrainingStatusResponse

Eventually = Callable[..., Awaitable[None]]

EVENTS = 12_000
KILLS_EACH = 2


def shop() -> tuple[list[Product], list[UserEvent]]:
    """Some of the simulated shop: its products and its first events, repeats and absurdities among them."""
    dataset = find(SIMULATED_SHOP)
    products = [product for batch in dataset.products() for product in batch]
    events = list(islice((event for batch in dataset.events() for event in batch), EVENTS))
    return products, events


async def kill_at_random(suite: Suite, seed: int, stop: asyncio.Event) -> Counter[str]:
    """Kills each service KILLS_EACH times, in a random order at random moments, and starts it again."""
    chance = random.Random(seed)
    victims = [service for service in SERVICES for _ in range(KILLS_EACH)]
    chance.shuffle(victims)
    killed: Counter[str] = Counter()
    for victim in victims:
        await _pause(stop, chance.uniform(0.05, 0.6))
        await suite.kill(victim)
        killed[victim] += 1
        await _pause(stop, chance.uniform(0.0, 0.3))
        await suite.start(victim)
    await suite.wait_ready()
    return killed


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """A random moment, or the end of the replay if that comes first."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def trainer_status(client: Client) -> GetTrainingStatusResponse:
    return await client.trainer.GetTrainingStatus(GetTrainingStatusRequest(with_digest=True), timeout=20)


async def served_space(client: Client) -> SpaceStats:
    stats = await client.index.GetIndexStats(GetIndexStatsRequest(with_digest=True), timeout=20)
    return next(space for space in stats.spaces if space.active)


async def fold_status(client: Client) -> GetFeatureStoreStatusResponse:
    return await client.feature_store.GetFeatureStoreStatus(GetFeatureStoreStatusRequest(with_digest=True), timeout=20)


async def settled(client: Client) -> bool:
    """Whether everything in the log is folded, learned, pushed and applied."""
    log_end = (await client.ingest.GetIngestStatus(GetIngestStatusRequest(), timeout=20)).log_end_offset
    trained, folded = await trainer_status(client), await fold_status(client)
    space = await served_space(client)
    return (
        folded.offset == log_end
        and trained.offset == log_end
        and trained.delta_sequence == trained.acknowledged_sequence == space.applied_sequence
    )


async def log_content(common: CommonSettings) -> tuple[list[UserEvent], str]:
    """All events in the log, and the digest of one uninterrupted fold over it."""
    log, straight, events, after = open_event_log(common), State(), [], 0
    while records := await log.read(after, limit=5_000):
        for record in records:
            straight.apply(fact_of(record))
            if record.kind == "user-event":
                events.append(LoggedUserEvent.FromString(record.payload).event)
        after = records[-1].offset
    await log.close()
    return events, straight.copy().digest()


async def dead_ids(client: Client) -> set[str]:
    """The ids of all events that the door refused."""
    ids: set[str] = set()
    token = ""
    while True:
        request = ListDeadLettersRequest(page_size=1_000, page_token=token)
        page = await client.ingest.ListDeadLetters(request, timeout=20)
        ids |= {letter.event.event_id for letter in page.dead_letters}
        token = page.next_page_token
        if not token:
            return ids


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Where the log, the catalogue and the registry are; empty: in files."""
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""


@pytest.mark.timeout(300)
async def test_killing_every_service_loses_nothing_and_doubles_nothing(
    database_url: str, tmp_path: Path, eventually: Eventually
) -> None:
    products, events = shop()
    common = CommonSettings(data_dir=tmp_path, event_log_url=database_url)
    names = ("HEADRACE_EVENT_LOG_URL", "HEADRACE_INGEST_DATABASE_URL", "HEADRACE_TRAINER_REGISTRY_URL")
    environment = dict.fromkeys(names, database_url)
    async with Suite(tmp_path, environment=environment) as suite, suite.client() as client:
        done = asyncio.Event()
        killer = asyncio.create_task(kill_at_random(suite, 7, done))
        async with Sender(client.ingest, batch=100) as sender:
            await sender.write_products(products)
            for start in range(0, len(events), 400):
                await sender.send(events[start : start + 400])
        done.set()
        killed = await killer
        await eventually(lambda: settled(client), 120)
        logged, digest = await log_content(common)
        event_ids = [event.event_id for event in logged]
        folded = await fold_status(client)

        assert killed == dict.fromkeys(SERVICES, KILLS_EACH)
        assert sender.counts.events == len(events)
        assert len(event_ids) == len(set(event_ids))
        assert set(event_ids) | await dead_ids(client) == {event.event_id for event in events}
        assert dict(folded.events_by_type) == Counter(event.event_type for event in logged)
        assert folded.state_digest == digest
        assert (await served_space(client)).digest == (await trainer_status(client)).vectors_digest

        end = (await client.ingest.GetIngestStatus(GetIngestStatusRequest())).log_end_offset
        accepted = [event for event in events if event.event_id in set(event_ids)][:1_000]
        for _ in range(10):
            async with Sender(client.ingest) as again:
                await again.send(accepted)
            assert again.counts.duplicates == len(accepted)
        assert (await client.ingest.GetIngestStatus(GetIngestStatusRequest())).log_end_offset == end
        assert (await fold_status(client)).state_digest == digest
