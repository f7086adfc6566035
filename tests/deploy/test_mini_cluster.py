"""The suite as the rendered manifests have it: started, probed, asked and ended as in a cluster."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from deploy.check.manifests import Manifest
from headrace.client import Shop, connect
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent
from headrace.v1.ingest_pb2 import WriteResult
from headrace.v1.ranker_pb2 import RecommendRequest
from tests.deploy.mini_cluster import MiniCluster

_ASKED = RecommendRequest(serving_config="recently-viewed", visitor_id="v", page_size=3)


@pytest.mark.timeout(150)
async def test_the_rendered_suite_starts_answers_and_drains(
    dev: list[Manifest], postgres_url: str, tmp_path: Path
) -> None:
    async with MiniCluster(dev, _secrets(postgres_url), tmp_path) as cluster:
        await cluster.wait_ready()
        pods = list(cluster.pods.values())
        async with connect(ingest=cluster.pods["ingest"].address, ranker=cluster.pods["ranker"].address) as shop:
            await shop.write_products([Product(id=f"p{number}", title=f"product {number}") for number in range(3)])
            [written] = await shop.write_events([_view("p1")])
            assert written.outcome == WriteResult.OUTCOME_ACCEPTED, written
            await _until_answered(shop, cluster, "p1")
            endings = [asyncio.create_task(pod.end()) for pod in pods]
            # preStop: callers may not have heard yet, and are answered all the same
            assert [found.product_id for found in (await shop.recommend(_ASKED)).results] == ["p1"]
        left_s = await asyncio.gather(*endings)
        cluster.raise_failed()
        assert min(left_s) > 0
        # the root is read-only in a cluster
        assert [path for pod in pods for path in pod.working_folder.iterdir()] == []


async def _until_answered(shop: Shop, cluster: MiniCluster, product_id: str) -> None:
    until = time.monotonic() + 30
    while product_id not in [found.product_id for found in (await shop.recommend(_ASKED)).results]:
        cluster.raise_failed()
        assert time.monotonic() < until, f"{product_id} was never answered"
        await asyncio.sleep(0.05)


def _view(product_id: str) -> UserEvent:
    event = UserEvent(event_type="detail-page-view", visitor_id="v")
    event.product_details.append(ProductDetail(product_id=product_id))
    event.event_time.FromMicroseconds(time.time_ns() // 1_000)
    return event


def _secrets(postgres_url: str) -> dict[str, dict[str, str]]:
    sqlalchemy = postgres_url.replace("postgresql://", "postgresql+psycopg://")
    urls = {"event-log-url": postgres_url, "ingest-database-url": sqlalchemy, "registry-url": sqlalchemy}
    return {"headrace-databases": urls, "headrace-privacy": {"key": "sixteen characters or more"}}
