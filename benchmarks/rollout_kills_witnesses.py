"""Those who see what rollouts do: callers of the rankers, watchers of the plan, a listener to webhooks."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import grpc

from benchmarks.rollout_kills_checks import Answer, Plan, Told
from headrace.client import Deadlines, Shop, connect
from headrace.ranker.assignment import key_of
from headrace.runtime.channels import open_channel
from headrace.runtime.clock import now_us
from headrace.runtime.errors import HeadraceError
from headrace.v1 import trainer_pb2, trainer_pb2_grpc
from headrace.v1.ranker_pb2 import RecommendRequest

if TYPE_CHECKING:
    from headrace.v1.trainer_pb2_grpc import TrainerServiceAsyncStub

CALLERS, PEOPLE, PAUSE_S = 3, 200, 0.1
# what is asked is whether a call is lost, not how long it takes on a machine where everything starts again
DEADLINE_S = 10.0
_AGAIN_S = 0.1
# of the listener's answers
_REFUSED = 0.03


class Callers:
    """People who ask for products, a few at a time, through the client of storefronts."""

    def __init__(self, rankers: str, seed: int) -> None:
        self.answers: list[Answer] = []
        self.errors: list[str] = []
        # of a ranker that has just begun
        self.without_release = 0
        self._rankers = rankers
        self._chance = random.Random(f"{seed}-callers")

    async def run(self) -> None:
        async with connect(ranker=self._rankers, deadlines=Deadlines(answer_s=DEADLINE_S)) as shop:
            await asyncio.gather(*(self._ask_on(shop) for _ in range(CALLERS)))

    async def _ask_on(self, shop: Shop) -> None:
        while True:
            await self._ask(shop, f"v{self._chance.randrange(PEOPLE)}")
            await asyncio.sleep(PAUSE_S)

    async def _ask(self, shop: Shop, visitor: str) -> None:
        begin_us = now_us()
        try:
            answer = await shop.recommend(RecommendRequest(serving_config="home", visitor_id=visitor, page_size=10))
        except HeadraceError as error:
            self.errors.append(f"{error!r}")
            return
        if not answer.results:
            self.errors.append("an answer without products")
        if not answer.info.release:
            self.without_release += 1
            return
        key = key_of(visitor, "")
        self.answers.append(Answer(begin_us, now_us(), key, answer.info.track, answer.info.release))

    def tracks(self) -> Counter[str]:
        return Counter(answer.track for answer in self.answers)


async def watch(registry: str, address: str, told: list[Told]) -> None:
    """Notes every plan that one registry tells, through all of its lives."""
    async with open_channel(address) as channel:
        stub: TrainerServiceAsyncStub = trainer_pb2_grpc.TrainerServiceStub(channel)
        while True:
            try:
                call = stub.WatchServingPlan(trainer_pb2.WatchServingPlanRequest())
                while (plan := await call.read()) != grpc.aio.EOF:
                    told.append(Told(registry, _plan(plan)))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(_AGAIN_S)


def _plan(message: trainer_pb2.WatchServingPlanResponse) -> Plan:
    return Plan(
        message.sequence,
        message.stable.release,
        message.canary.release,
        message.shadow.release,
        message.assignment.rollout,
        message.assignment.share_bp,
    )


class Listener:
    """Hears of transitions by POST; refuses now and then, and is to be told again."""

    def __init__(self, url: str, heard: list[int]) -> None:
        self.url = url
        self.heard = heard


@contextmanager
def listener(seed: int) -> Iterator[Listener]:
    """A real HTTP server while open."""
    heard, chance = list[int](), random.Random(f"{seed}-listener")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            news = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_refused = chance.random() < _REFUSED
            if not is_refused:
                heard.append(news["number"])
            self.send_response(503 if is_refused else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, name="listener")
    thread.start()
    try:
        yield Listener(f"http://127.0.0.1:{server.server_address[1]}/hook", heard)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
