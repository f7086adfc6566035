"""A real door over real files, and the events to bring to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.ingest.__main__ import compose
from headrace.ingest.settings import IngestSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import ingest_pb2 as pb
from headrace.v1.common_pb2 import ProductDetail, UserEvent
from headrace.v1.ingest_pb2_grpc import IngestServiceStub
from headrace.v1.log_pb2 import LoggedUserEvent

ACCEPTED, DUPLICATE, REJECTED = (
    pb.WriteResult.OUTCOME_ACCEPTED,
    pb.WriteResult.OUTCOME_DUPLICATE,
    pb.WriteResult.OUTCOME_REJECTED,
)


@dataclass
class Door:
    """A running door, a stub to it, and its log as another process would see it."""

    channel: grpc.aio.Channel
    log: EventLog

    @property
    def stub(self) -> IngestServiceStub:
        return IngestServiceStub(self.channel)

    async def write(self, *events: UserEvent) -> list[pb.WriteResult]:
        return list((await self.stub.WriteUserEvents(pb.WriteUserEventsRequest(events=events))).results)

    async def records(self, kind: str = "user-event") -> list[LoggedRecord]:
        return await self.log.read(0, limit=1_000_000, kinds=(kind,))

    async def logged(self) -> list[LoggedUserEvent]:
        return [LoggedUserEvent.FromString(record.payload) for record in await self.records()]

    async def letters(self, **request: object) -> list[pb.DeadLetter]:
        answer = await self.stub.ListDeadLetters(pb.ListDeadLettersRequest(**request))  # type: ignore[arg-type]
        return list(answer.dead_letters)


OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]


@dataclass(frozen=True)
class Backend:
    """Where a door keeps its log and its catalogue."""

    common: CommonSettings
    database_url: str

    @contextmanager
    def catalogue(self) -> Iterator[sa.Connection]:
        """The catalogue's database as a person with a shell would see it."""
        url = self.database_url or f"sqlite:///{self.common.data_dir / 'ingest' / 'catalogue.db'}"
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            yield connection
        engine.dispose()


@pytest.fixture
def backend_at(tmp_path: Path) -> Callable[[str], Backend]:
    """Everything in one PostgreSQL, or in files where the URL is empty."""
    return lambda url: Backend(CommonSettings(data_dir=tmp_path, event_log_url=url), url)


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, backend_at: Callable[[str], Backend]) -> Backend:
    return backend_at(request.getfixturevalue("postgres_url") if request.param == "postgresql" else "")


@pytest.fixture
def open_door(backend: Backend) -> OpenDoor:
    @asynccontextmanager
    async def open_it(**settings: object) -> AsyncIterator[Door]:
        given = IngestSettings(port=0, drain_s=0, database_url=backend.database_url, **settings)  # type: ignore[arg-type]
        log = open_event_log(backend.common)
        async with (
            compose(given, backend.common) as parts,
            running(parts, given) as server,
            open_channel(server.address) as channel,
        ):
            yield Door(channel, log)
        await log.close()

    return open_it


@pytest.fixture
async def door(open_door: OpenDoor) -> AsyncIterator[Door]:
    async with open_door() as opened:
        yield opened


def _event(number: int = 0, event_type: str = "detail-page-view", *products: str, **fields: object) -> UserEvent:
    details = [ProductDetail(product_id=product) for product in products or ("p",)]
    given = {"visitor_id": "v", "event_time": Timestamp(seconds=1_500_000_000 + number)} | fields
    return UserEvent(event_type=event_type, product_details=details, **given)  # type: ignore[arg-type]


@pytest.fixture
def event() -> Callable[..., UserEvent]:
    return _event
