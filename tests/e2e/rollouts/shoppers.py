"""People of a small shop, each of whom likes one kind of product: they ask, look at what they like, and go on."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from headrace.cli.client import Client
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent
from headrace.v1.ingest_pb2 import WriteProductsRequest, WriteUserEventsRequest
from headrace.v1.ranker_pb2 import RecommendRequest
from tests.e2e.rollouts.chain import until

NOUNS = ("mug", "lamp", "chair", "kettle", "cushion", "clock")
_WORDS = ("red", "blue", "green", "white", "black", "yellow", "pink", "grey", "orange", "purple")
PEOPLE = 330
_PAUSE_S = 0.01
# nobody looks before the list that was shown is logged
_THINKS_S = 0.6
_HOUR_S = 3_600


@dataclass(frozen=True)
class Answered:
    """One answer, and when it came (time.monotonic)."""

    at_s: float
    visitor: str
    release: str
    space: str
    track: str


def products() -> list[Product]:
    names = [f"{word} {noun}" for noun in NOUNS for word in _WORDS]
    return [Product(id=name.replace(" ", "-"), title=name) for name in names]


def liked(visitor: str) -> str:
    """The kind of product that a visitor likes."""
    return NOUNS[int(visitor[1:]) % len(NOUNS)]


def visitors() -> list[str]:
    return [f"v{number}" for number in range(PEOPLE)]


def view(visitor: str, product_id: str, token: str = "", age_s: float = 0.0) -> UserEvent:
    event = UserEvent(
        event_type="detail-page-view",
        visitor_id=visitor,
        product_details=[ProductDetail(product_id=product_id)],
        attribution_token=token,
    )
    event.event_time.FromMicroseconds(int((time.time() - age_s) * 1e6))
    return event


async def write_history(client: Client) -> int:
    """Products, and what everybody looked at in the hour before; the offset of the last of it."""
    await client.ingest.WriteProducts(WriteProductsRequest(products=products()))
    rng, events = random.Random(1), []
    for visitor in visitors():
        seen = rng.sample([f"{word}-{liked(visitor)}" for word in _WORDS], 6)
        events += [view(visitor, each, age_s=_HOUR_S - 60.0 * at) for at, each in enumerate(seen)]
    written = await client.ingest.WriteUserEvents(WriteUserEventsRequest(events=events))
    return max(result.offset for result in written.results)


class Shoppers:
    """Ask and look for as long as they shop; `answers` holds all that they were told."""

    def __init__(self, client: Client) -> None:
        self.answers: list[Answered] = []
        self._client = client
        self._rng = random.Random(2)
        self._thinking: deque[tuple[float, str, str, str]] = deque()

    @asynccontextmanager
    async def shopping(self) -> AsyncIterator[Shoppers]:
        task = asyncio.create_task(self._shop())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled(), task.exception()

    async def told(self, count: int) -> list[Answered]:
        """The next so many answers, while they shop."""
        heard = len(self.answers)

        async def are_heard() -> bool:
            return len(self.answers) >= heard + count

        await until(are_heard)
        return self.answers[heard : heard + count]

    def since(self, at_s: float) -> list[Answered]:
        return [answer for answer in self.answers if answer.at_s >= at_s]

    async def _shop(self) -> None:
        everybody = visitors()
        while True:
            for visitor in everybody:
                await self._visit(visitor)
                await asyncio.sleep(_PAUSE_S)

    async def _visit(self, visitor: str) -> None:
        request = RecommendRequest(serving_config="home", visitor_id=visitor, page_size=20)
        answer = await self._client.ranker.Recommend(request, timeout=5)
        info = answer.info
        self.answers.append(Answered(time.monotonic(), visitor, info.release, info.space, info.track))
        shown = [result.product_id for result in answer.results]
        wanted = [each for each in shown if each.endswith(liked(visitor))] or shown
        # mostly the first of what they like
        looked = wanted[min(int(self._rng.expovariate(1.0)), len(wanted) - 1)]
        self._thinking.append((time.monotonic() + _THINKS_S, visitor, looked, info.attribution_token))
        await self._look()

    async def _look(self) -> None:
        """Those who have thought for long enough look at what they chose."""
        events = []
        while self._thinking and self._thinking[0][0] <= time.monotonic():
            _, visitor, product_id, token = self._thinking.popleft()
            events.append(view(visitor, product_id, token))
        if events:
            await self._client.ingest.WriteUserEvents(WriteUserEventsRequest(events=events), timeout=5)
