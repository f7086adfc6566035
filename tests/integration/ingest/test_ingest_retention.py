"""What the door lets the log forget, and who is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.ingest.__main__ import compose
from headrace.ingest.settings import IngestSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.errors import TrimmedError
from headrace.runtime.eventlog import EventLog
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import Product, UserEvent
from headrace.v1.ingest_pb2_grpc import IngestServiceStub

# some milliseconds
SHORT_DAYS = 1e-7
BOOT = pb.WriteProductsRequest(products=[Product(id="p", title="Boot")])


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""


@asynccontextmanager
async def door(folder: Path, url: str, days: float) -> AsyncIterator[tuple[IngestServiceStub, EventLog]]:
    """A door that keeps its records for some days, and its log as another process sees it."""
    settings = IngestSettings(port=0, drain_s=0, database_url=url)
    common = CommonSettings(data_dir=folder, event_log_url=url, event_log_retention_days=days)
    log = open_event_log(common)
    async with (
        compose(settings, common) as parts,
        running(parts, settings) as server,
        open_channel(server.address) as channel,
    ):
        yield IngestServiceStub(channel), log
    await log.close()


async def until_one_is_left(log: EventLog) -> None:
    while True:
        if len(await log.read(0)) == 1:
            return
        await asyncio.sleep(0.005)


async def test_old_records_are_forgotten_with_their_ids_but_the_catalogue_is_not(
    url: str, tmp_path: Path, event: Callable[..., UserEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.ingest.__main__._TRIM_EVERY_S", 0.02)
    async with door(tmp_path, url, 0) as (stub, log):
        await stub.WriteProducts(BOOT)
        written = await stub.WriteUserEvents(pb.WriteUserEventsRequest(events=[event(1), event(2), event(3)]))
        assert len(await log.read(0)) == 4
    # a window that the log no longer covers is no hindrance
    for _ in range(2):
        async with door(tmp_path, url, SHORT_DAYS) as (stub, log):
            await until_one_is_left(log)
            assert (await stub.WriteProducts(BOOT)).results[0].outcome == pb.WriteResult.OUTCOME_DUPLICATE
            again = await stub.WriteUserEvents(pb.WriteUserEventsRequest(events=[event(1)]))
            assert again.results[0].outcome == pb.WriteResult.OUTCOME_ACCEPTED
            assert again.results[0].offset > written.results[-1].offset
            await stub.WriteUserEvents(pb.WriteUserEventsRequest(events=[event(4)]))
            await until_one_is_left(log)


async def test_a_lost_catalogue_is_not_made_anew_from_a_log_that_has_forgotten_its_beginning(
    tmp_path: Path, event: Callable[..., UserEvent]
) -> None:
    async with door(tmp_path, "", 0) as (stub, log):
        await stub.WriteProducts(BOOT)
        await stub.WriteUserEvents(pb.WriteUserEventsRequest(events=[event(1)]))
        await log.trim((await log.end())[1] + 1)
    for file in (tmp_path / "ingest").iterdir():
        file.unlink()
    with pytest.raises(TrimmedError, match="forgotten the records 1 to 1, which a reader that stands at 0 needs"):
        async with door(tmp_path, "", 0):
            pass
