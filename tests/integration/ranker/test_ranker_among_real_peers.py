"""The whole suite in one process: what is written at the door comes back in answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.feature_store.__main__ import compose as compose_feature_store
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.index.__main__ import compose as compose_index
from headrace.index.settings import IndexSettings
from headrace.ingest.__main__ import compose as compose_ingest
from headrace.ingest.settings import IngestSettings
from headrace.ranker.__main__ import compose as compose_ranker
from headrace.ranker.settings import RankerSettings
from headrace.runtime.channels import open_channel
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.trainer.__main__ import compose as compose_trainer
from headrace.trainer.settings import TrainerSettings
from headrace.v1 import common_pb2, ingest_pb2, ingest_pb2_grpc, ranker_pb2, ranker_pb2_grpc

START_S = 1_700_000_000
PATIENT = {"state_budget_s": 5.0, "search_budget_s": 5.0, "score_budget_s": 5.0, "default_deadline_s": 20.0}


class Suite:
    """Clients of the two doors."""

    def __init__(self, ingest: ingest_pb2_grpc.IngestServiceStub, ranker: ranker_pb2_grpc.RankerServiceStub) -> None:
        self.ingest = ingest
        self.ranker = ranker
        self._clock_s = START_S

    async def sell(self, *products: common_pb2.Product) -> None:
        await self.ingest.WriteProducts(ingest_pb2.WriteProductsRequest(products=products))

    async def act(self, user_id: str, event_type: str, *product_ids: str) -> int:
        """Something happens, a minute after the last; answers its log offset."""
        self._clock_s += 60
        event = common_pb2.UserEvent(
            event_type=event_type,
            user_id=user_id,
            event_time=Timestamp(seconds=self._clock_s),
            product_details=[common_pb2.ProductDetail(product_id=each, quantity=1) for each in product_ids],
        )
        response = await self.ingest.WriteUserEvents(ingest_pb2.WriteUserEventsRequest(events=[event]))
        assert response.results[0].outcome == ingest_pb2.WriteResult.OUTCOME_ACCEPTED, response
        return response.results[0].offset

    async def recommend(self, serving_config: str, user_id: str, **fields: object) -> ranker_pb2.RecommendResponse:
        request = ranker_pb2.RecommendRequest(serving_config=serving_config, user_id=user_id, **fields)
        return await self.ranker.Recommend(request, timeout=20)

    async def found(self, query: str) -> list[str]:
        response = await self.ranker.Search(ranker_pb2.SearchRequest(query=query), timeout=20)
        return [result.product_id for result in response.results]

    async def status(self) -> ranker_pb2.GetRankerStatusResponse:
        return await self.ranker.GetRankerStatus(ranker_pb2.GetRankerStatusRequest())


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[Suite]:
    common = CommonSettings(data_dir=tmp_path)
    async with AsyncExitStack() as stack:

        async def start(compose, settings) -> str:
            parts = await stack.enter_async_context(compose(settings, common))
            return (await stack.enter_async_context(running(parts, settings))).address

        ingest = await start(compose_ingest, IngestSettings(port=0, drain_s=0))
        store = await start(compose_feature_store, FeatureStoreSettings(port=0, drain_s=0))
        index = await start(compose_index, IndexSettings(port=0, device="cpu", drain_s=0))
        peers = {"feature_store_address": store, "index_address": index}
        trainer = await start(compose_trainer, TrainerSettings(port=0, drain_s=0, publish_every_s=0.5, **peers))
        ranker = await start(
            compose_ranker, RankerSettings(port=0, drain_s=0, retry_s=0.05, trainer_address=trainer, **PATIENT, **peers)
        )
        ingest_channel = await stack.enter_async_context(open_channel(ingest))
        ranker_channel = await stack.enter_async_context(open_channel(ranker))
        yield Suite(
            ingest_pb2_grpc.IngestServiceStub(ingest_channel), ranker_pb2_grpc.RankerServiceStub(ranker_channel)
        )


def ids(response: ranker_pb2.RecommendResponse) -> list[str]:
    return [result.product_id for result in response.results]


async def test_a_shop_that_just_opened_learns_and_answers(suite, make):
    products = [make.product(ordinal, title) for ordinal, title in enumerate(make.products)]
    await suite.sell(*products)

    async def is_found() -> bool:
        return "p-0" in await suite.found("red mug")

    await make.eventually(is_found)

    offset = await suite.act("ann", "detail-page-view", "p-7")
    first = await suite.recommend("recently-viewed", "ann", min_offset=offset)
    assert ids(first) == ["p-7"]
    assert first.info.state_offset >= offset
    await suite.act("ann", "purchase-complete", "p-3", "p-21")
    offset = await suite.act("ann", "purchase-complete", "p-5")
    again = await suite.recommend("repurchase", "ann", min_offset=offset)
    assert set(ids(again)) == {"p-3", "p-21", "p-5"}

    for person in range(20):
        offset = await suite.act(f"u{person}", "purchase-complete", f"p-{person}", f"p-{person + 20}")

    async def is_released_and_told() -> bool:
        status = await suite.status()
        return bool(status.release) and status.feature_offset >= offset

    await make.eventually(is_released_and_told, 60)
    home = await suite.recommend("home", "ann", explain=True)
    assert len(home.results) == 20
    assert list(home.info.degraded_reasons) == []
    assert home.info.release.startswith("r-")
    together = await suite.recommend("frequently-bought-together", "ann", product_ids=["p-3"])
    assert ids(together)[:1] == ["p-21"] or "p-23" in ids(together)
    similar = await suite.recommend("similar-items", "ann", product_ids=["p-0"], explain=True)
    assert any("vector" in result.reasons for result in similar.results)

    await suite.ingest.DeleteProduct(ingest_pb2.DeleteProductRequest(product_id="p-0"))

    async def is_gone() -> bool:
        return "p-0" not in await suite.found("red mug")

    await make.eventually(is_gone)

    async def is_logged() -> bool:
        # impressions are written after the answer has gone out
        return (await suite.status()).impressions_logged > 0

    await make.eventually(is_logged)
