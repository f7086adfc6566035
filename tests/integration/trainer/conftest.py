"""A shop's log, and real servers around the trainer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from headrace.feature_store.__main__ import compose as compose_feature_store
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.index.__main__ import compose as compose_index
from headrace.index.settings import IndexSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import RunningServer, running
from headrace.runtime.settings import CommonSettings, load
from headrace.trainer.__main__ import compose
from headrace.trainer.rollouts.settings import RolloutSettings
from headrace.trainer.settings import TrainerSettings
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc, log_pb2, trainer_pb2, trainer_pb2_grpc

_START_US = 1_300_000_000_000_000
_HOUR_US = 3_600_000_000
_NOBODY = "127.0.0.1:1"


class Suite:
    """Real servers over one data folder, small models, and a shop of two groups of items."""

    def __init__(self, folder: Path) -> None:
        self.common = CommonSettings(data_dir=folder)
        self._written = 0

    def settings(self, **changed: object) -> TrainerSettings:
        small = {
            "port": 0,
            "index_address": _NOBODY,
            "feature_store_address": _NOBODY,
            "dimension": 8,
            "max_length": 8,
            "text_width": 8,
            "uniform_negatives": 16,
            "popular_negatives": 16,
            "slice_every_s": 0.05,
            "rows_every_s": 0.1,
            "publish_every_s": 3_600.0,
        }
        return TrainerSettings(**small | changed)

    @staticmethod
    def rules(**changed: object) -> RolloutSettings:
        """Rollouts that are decided at once."""
        quick = {"look_every_s": 0.02, "unserved_s": 0.02, "supersede_after_s": 0.02, "increment_soak_s": 0.1}
        given = {f"HEADRACE_ROLLOUT_{name.upper()}": str(value) for name, value in (quick | changed).items()}
        return load(RolloutSettings, given)

    async def write(self, records: list[Record]) -> None:
        log = open_event_log(self.common)
        await log.append(records)
        await log.close()

    def products(self, count: int = 20, title: str = "garden chair", traceparent: str = "") -> list[Record]:
        return [self._product(at, f"{title} {at}", traceparent) for at in range(count)]

    def _product(self, ordinal: int, title: str, traceparent: str) -> Record:
        change = log_pb2.ProductChange(
            ordinal=ordinal,
            product=common_pb2.Product(
                id=f"p{ordinal}", title=title, price_info=common_pb2.PriceInfo(price=1.0 + ordinal)
            ),
            change_time_us=_START_US,
        )
        return self._record("product-change", f"p{ordinal}", _START_US, change.SerializeToString(), traceparent)

    def visits(self, people: int, length: int = 4, traceparent: str = "", token: str = "") -> list[Record]:
        written = self._written
        rng = np.random.default_rng(written)
        return [
            self._view(f"u:{written}-{person}", int(ordinal), person * _HOUR_US, traceparent, token)
            for person in range(people)
            for ordinal in rng.integers(0, 10, length) + 10 * rng.integers(0, 2)
        ]

    def _view(self, user_key: str, ordinal: int, after_us: int, traceparent: str, token: str) -> Record:
        time_us = _START_US + after_us
        event = log_pb2.LoggedUserEvent(
            event=common_pb2.UserEvent(
                event_type="detail-page-view",
                visitor_id=user_key,
                attribution_token=token,
                product_details=[common_pb2.ProductDetail(product_id=f"p{ordinal}")],
            ),
            user_key=user_key,
            item_ordinals=[ordinal],
            event_time_us=time_us,
            ingest_time_us=time_us,
        )
        return self._record("user-event", user_key, time_us, event.SerializeToString(), traceparent)

    def _record(self, kind: str, key: str, time_us: int, payload: bytes, traceparent: str) -> Record:
        self._written += 1
        return Record(kind, key, f"{kind}-{self._written}", time_us, payload, traceparent)

    @asynccontextmanager
    async def index(self, port: int = 0, folder: str = "", shard: str = "0/1") -> AsyncIterator[RunningServer]:
        """An index over the suite's folder, or over a folder of its own in it."""
        settings = IndexSettings(port=port, shard=shard)
        common = CommonSettings(data_dir=self.common.data_dir / folder)
        async with compose_index(settings, common) as parts, running(parts, settings) as server:
            yield server

    @asynccontextmanager
    async def feature_store(self) -> AsyncIterator[RunningServer]:
        settings = FeatureStoreSettings(port=0)
        async with compose_feature_store(settings, self.common) as parts, running(parts, settings) as server:
            yield server

    @asynccontextmanager
    async def trainer(self, **changed: object) -> AsyncIterator[trainer_pb2_grpc.TrainerServiceStub]:
        settings = self.settings(**changed)
        async with compose(settings, self.common, rules=self.rules()) as parts, running(parts, settings) as server:
            channel = open_channel(server.address)
            yield trainer_pb2_grpc.TrainerServiceStub(channel)
            await channel.close()

    @staticmethod
    async def stats(server: RunningServer) -> index_pb2.GetIndexStatsResponse:
        channel = open_channel(server.address)
        stub = index_pb2_grpc.IndexServiceStub(channel)
        stats = await stub.GetIndexStats(index_pb2.GetIndexStatsRequest(with_digest=True))
        await channel.close()
        return stats

    @staticmethod
    async def learned(
        stub: trainer_pb2_grpc.TrainerServiceStub, pushed: bool = False
    ) -> trainer_pb2.GetTrainingStatusResponse:
        """The status once everything in the log is learned (and acknowledged by the index)."""

        async def status() -> trainer_pb2.GetTrainingStatusResponse | None:
            found = await stub.GetTrainingStatus(trainer_pb2.GetTrainingStatusRequest(with_digest=True))
            done = found.offset == found.log_end_offset > 0 and found.newest_release != ""
            return found if done and (not pushed or found.acknowledged_sequence == found.delta_sequence) else None

        return await Suite.until(status)

    @staticmethod
    async def until(probe: Callable[[], Awaitable[object]], limit_s: float = 30.0):  # type: ignore[no-untyped-def]
        """The first answer of `probe` that is true."""
        end = time.monotonic() + limit_s
        while not (answer := await probe()):
            assert time.monotonic() < end, "it did not come true in time"
            await asyncio.sleep(0.02)
        return answer


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)
