"""How fresh a running suite is, measured from outside through its API, one probe at a time.

Every probe does something, then asks until the answer shows it; the result is milliseconds from sending
to seeing. TimeoutError when nothing shows within `patience_s`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.cli.client import Client
from headrace.v1.common_pb2 import CHANNEL_APP, PriceInfo, Product, ProductDetail, UserEvent
from headrace.v1.feature_store_pb2 import WatchItemFeaturesRequest
from headrace.v1.index_pb2 import GetEmbeddingsRequest
from headrace.v1.ingest_pb2 import DeleteProductRequest, WriteProductsRequest, WriteResult, WriteUserEventsRequest
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, RecommendRequest, SearchRequest

_POLL_S = 0.01
_CALL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Probes:
    """Probes of the suite behind `client`; `run` makes their visitors and products new to the shop."""

    client: Client
    run: str
    patience_s: float = 10.0

    async def click_to_answer_ms(self, number: int, product_id: str, event_time: Timestamp) -> float:
        """A visitor's first view → a home list that was made from it and differs from the one before."""
        visitor = f"{self.run}-click-{number}"
        before = await self._home(visitor)
        begun = time.perf_counter()
        offset = await self._view(visitor, product_id, event_time)

        async def changed() -> bool:
            answer = await self.client.ranker.Recommend(_home_request(visitor), timeout=_CALL_TIMEOUT_S)
            return answer.info.state_offset >= offset and [r.product_id for r in answer.results] != before

        await self._until(changed, "a changed home list")
        return _ms_since(begun)

    async def product_to_search_ms(self, number: int, title: str) -> float:
        """A new product → it is found by a search for its name."""
        word = f"{self.run}{number}".replace("-", "")
        product_id = f"{self.run}-search-{number}"
        begun = time.perf_counter()
        await self._write_product(Product(id=product_id, title=f"{title} {word}", price_info=PriceInfo(price=1)))

        async def found() -> bool:
            request = SearchRequest(query=word, visitor_id=self.run)
            answer = await self.client.ranker.Search(request, timeout=_CALL_TIMEOUT_S)
            return product_id in {result.product_id for result in answer.results}

        await self._until(found, f"search to find {product_id}")
        took_ms = _ms_since(begun)
        await self._delete(product_id)
        return took_ms

    async def product_to_similar_ms(self, number: int, title: str) -> float:
        """A new product → it is among the products similar to its twin (the same words, seconds older)."""
        ids = [f"{self.run}-twin-{number}-{which}" for which in ("a", "b")]
        twin, product = (Product(id=one, title=f"{title} {self.run}", price_info=PriceInfo(price=1)) for one in ids)
        await self._write_product(twin)
        begun = time.perf_counter()
        await self._write_product(product)

        async def found() -> bool:
            request = RecommendRequest(serving_config="similar-items", visitor_id=self.run, product_ids=[twin.id])
            answer = await self.client.ranker.Recommend(request, timeout=_CALL_TIMEOUT_S)
            return product.id in {result.product_id for result in answer.results}

        await self._until(found, f"similar-items to find {product.id}")
        took_ms = _ms_since(begun)
        await self._delete(*ids)
        return took_ms

    async def event_to_served_vector_ms(
        self, number: int, earlier: str, product_id: str, ordinal: int, event_time: Timestamp
    ) -> float:
        """A view that can be learned from → the item's learned vector is in the index and in the ranker."""
        visitor = f"{self.run}-learn-{number}"
        await self._view(visitor, earlier, event_time)
        begun = time.perf_counter()
        offset = await self._view(visitor, product_id, event_time)

        async def moved() -> bool:
            wanted = np.array([ordinal], "<u4").tobytes()
            rows = await self.client.index.GetEmbeddings(
                GetEmbeddingsRequest(item_ordinals=wanted), timeout=_CALL_TIMEOUT_S
            )
            return max(np.frombuffer(rows.log_offsets, "<i8"), default=0) >= offset

        async def served() -> bool:
            status = await self.client.ranker.GetRankerStatus(GetRankerStatusRequest(), timeout=_CALL_TIMEOUT_S)
            return status.vectors_log_offset >= offset

        await self._until(moved, f"the vector of {product_id} to move")
        await self._until(served, f"the ranker to hold the vector of {product_id}")
        return _ms_since(begun)

    async def _home(self, visitor: str) -> list[str]:
        answer = await self.client.ranker.Recommend(_home_request(visitor), timeout=_CALL_TIMEOUT_S)
        return [result.product_id for result in answer.results]

    async def _view(self, visitor: str, product_id: str, event_time: Timestamp) -> int:
        event = UserEvent(
            event_type="detail-page-view",
            visitor_id=visitor,
            event_time=event_time,
            product_details=[ProductDetail(product_id=product_id)],
            channel=CHANNEL_APP,
        )
        request = WriteUserEventsRequest(events=[event])
        response = await self.client.ingest.WriteUserEvents(request, timeout=_CALL_TIMEOUT_S)
        return _accepted(response.results)

    async def _write_product(self, product: Product) -> int:
        request = WriteProductsRequest(products=[product])
        response = await self.client.ingest.WriteProducts(request, timeout=_CALL_TIMEOUT_S)
        return _accepted(response.results)

    async def _delete(self, *product_ids: str) -> None:
        """A probe leaves no product behind."""
        for product_id in product_ids:
            request = DeleteProductRequest(product_id=product_id)
            await self.client.ingest.DeleteProduct(request, timeout=_CALL_TIMEOUT_S)

    async def _until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        end = time.monotonic() + self.patience_s
        while not await holds():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {self.patience_s:g} s for {what}")
            await asyncio.sleep(_POLL_S)


async def ordinals_by_product(client: Client) -> dict[str, int]:
    """The dense ordinal of every product that the feature store knows."""
    ordinals: dict[str, int] = {}
    watch = client.feature_store.WatchItemFeatures(WatchItemFeaturesRequest())
    async for part in watch:
        ordinals |= {document.product.id: document.ordinal for document in part.documents}
        if part.snapshot_end:
            break
    watch.cancel()
    return ordinals


def _home_request(visitor: str) -> RecommendRequest:
    return RecommendRequest(serving_config="home", visitor_id=visitor, page_size=20)


def _accepted(results: Sequence[WriteResult]) -> int:
    refused = [result for result in results if result.outcome == WriteResult.OUTCOME_REJECTED]
    if refused:
        raise ValueError(f"a probe was refused: {refused[0].reason} {refused[0].violations}")
    return max(result.offset for result in results)


def _ms_since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1e3
