"""Asks a running suite for many people's lists, and waits for it to know what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from headrace.cli.client import Client
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, RecommendRequest
from headrace.v1.trainer_pb2 import GetTrainingStatusRequest

_AT_ONCE = 8
_POLL_S = 0.2
_TIMEOUT_S = 30.0


async def lists(
    client: Client, users: Sequence[str], min_offset: int, advance: Callable[[], None] = lambda: None
) -> dict[str, list[str]]:
    """Twenty products for each user: home lists made from a state that holds the log up to `min_offset`.

    `advance` is called after each answer.
    """
    permits = asyncio.Semaphore(_AT_ONCE)

    async def ask(user: str) -> tuple[str, list[str]]:
        async with permits:
            request = RecommendRequest(serving_config="home", user_id=user, page_size=20, min_offset=min_offset)
            answer = await client.ranker.Recommend(request, timeout=_TIMEOUT_S)
            advance()
            return user, [result.product_id for result in answer.results]

    return dict(await asyncio.gather(*(ask(user) for user in users)))


async def learned(client: Client, offset: int) -> None:
    """Returns when the towers and the ranker network have learned the log up to `offset`."""
    while True:
        status = await client.trainer.GetTrainingStatus(GetTrainingStatusRequest(), timeout=_TIMEOUT_S)
        if min(status.offset, status.rows_offset) >= offset:
            return
        await asyncio.sleep(_POLL_S)


async def caught_up(client: Client, offset: int) -> None:
    """Returns when the log up to `offset` is folded, learned, and in the ranker's memory, and a release serves."""
    while True:
        trained = await client.trainer.GetTrainingStatus(GetTrainingStatusRequest(), timeout=_TIMEOUT_S)
        served = await client.ranker.GetRankerStatus(GetRankerStatusRequest(), timeout=_TIMEOUT_S)
        if min(trained.offset, served.feature_offset) >= offset and served.release:
            return
        await asyncio.sleep(_POLL_S)
