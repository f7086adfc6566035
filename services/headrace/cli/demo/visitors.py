"""People who look at the shop's home page, at a steady rate, so that what is released meets requests."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from headrace.cli.client import Client
from headrace.v1.ranker_pb2 import RecommendRequest

_PER_S = 20
_TIMEOUT_S = 5.0


@dataclass
class Visits:
    """What they were answered: how many answers each release made, and how many calls failed."""

    by_release: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    @property
    def answers(self) -> int:
        return self.by_release.total()


@asynccontextmanager
async def visitors(client: Client, people: Sequence[str]) -> AsyncIterator[Visits]:
    """Visits of `people` (user ids) by chance while open."""
    visits = Visits()
    coming = asyncio.create_task(_come(client, people, visits))
    try:
        yield visits
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def _come(client: Client, people: Sequence[str], visits: Visits) -> None:
    chance, loop = random.Random(11), asyncio.get_running_loop()
    due = loop.time()
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(_visit(client, chance.choice(people), visits))
            due += 1 / _PER_S
            await asyncio.sleep(max(0.0, due - loop.time()))


async def _visit(client: Client, person: str, visits: Visits) -> None:
    request = RecommendRequest(serving_config="home", user_id=person, page_size=20)
    try:
        answer = await client.ranker.Recommend(request, timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError:
        visits.failed += 1
    else:
        visits.by_release[answer.info.release] += 1
