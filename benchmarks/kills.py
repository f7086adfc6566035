"""Is what was acknowledged kept, once, while everything under it is killed again and again?

A shop's events flow at 2,000 a second into ingest and feature store, over a PostgreSQL that keeps the log and the
catalogue and a Redis that keeps people's histories. One of the four after the other, at random, is killed by SIGKILL
at a random moment and started again. Clients send a batch again until it is acknowledged, as any client has to. At
the end the log is read whole, and the feature store is compared with a fold of it that nobody disturbed.

`python -m benchmarks.kills [--quick] [--seed N] [--kills N] --json PATH`
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from benchmarks.arguments import base_parser
from benchmarks.postgres_server import PostgresServer, postgres_server
from benchmarks.redis_server import RedisServer, redis_server
from benchmarks.results import Bar, Result
from headrace.cli.client import Client
from headrace.cli.suite import Suite
from headrace.feature_store.fold import State
from headrace.feature_store.records import fact_of
from headrace.feature_store.rules import Rules
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1.common_pb2 import Channel, ProductDetail, UserEvent
from headrace.v1.feature_store_pb2 import GetFeatureStoreStatusRequest, GetFeatureStoreStatusResponse
from headrace.v1.ingest_pb2 import WriteResult, WriteUserEventsRequest

SERVICES = ("ingest", "feature-store")
VICTIMS = (*SERVICES, "postgresql", "redis")

RATE, LANES, BATCH = 2_000, 8, 50
PEOPLE, ITEMS, HOT = 20_000, 2_000, 2_000
KILLS, QUICK_KILLS = 200, 12
# training rows cost more than all counts together, and are not what is asked here
ROW_SAMPLE_RATE = 0.05

_TYPES = ("detail-page-view",) * 8 + ("add-to-cart", "purchase-complete")
_CALL_S, _PAUSE_S, _SETTLE_S = 20.0, 0.05, 240.0
_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
)


@dataclass
class Sent:
    """What clients know: acknowledged events, and how often they had to send a batch again."""

    acknowledged: list[str] = field(default_factory=list)
    # taken by the log at an attempt whose answer was lost
    found_there: int = 0
    sent_again: int = 0


@dataclass(frozen=True)
class Found:
    """What is wrong in the end; all of it should be 0."""

    lost: int
    doubled: int
    unknown: int
    out_of_order: int
    is_folded_right: bool


class Shop:
    """People who view, put into carts and buy, a lane of them each; every event has an id and a number."""

    def __init__(self, lane: int, seed: int) -> None:
        self._chance = random.Random(f"{seed}-{lane}")
        self._lane = lane
        self._number = 0

    def batch(self) -> list[UserEvent]:
        return [self._event() for _ in range(BATCH)]

    def _event(self) -> UserEvent:
        self._number += 1
        person = self._chance.randrange(PEOPLE // LANES) * LANES + self._lane
        event = UserEvent(
            event_id=f"{self._lane}-{self._number:09d}",
            event_type=self._chance.choice(_TYPES),
            visitor_id=f"visitor-{person}",
            # one after the other: the door takes no second view of one product within a moment
            product_details=[ProductDetail(product_id=f"item-{self._number % ITEMS}", quantity=1, price=9.5)],
            channel=Channel.CHANNEL_WEB,
        )
        event.event_time.FromNanoseconds(time.time_ns())
        return event


async def send(client: Client, shop: Shop, sent: Sent, stop: asyncio.Event, seed: int) -> None:
    """Sends one lane's batches at its share of the rate, each until it is acknowledged."""
    chance, loop = random.Random(seed), asyncio.get_running_loop()
    due = loop.time()
    while not stop.is_set():
        events = shop.batch()
        results = await _acknowledged(client, events, sent, chance)
        refused = next((result for result in results if result.outcome == WriteResult.OUTCOME_REJECTED), None)
        assert refused is None, f"every event is sound, and this one was refused: {refused}"
        sent.acknowledged += [event.event_id for event in events]
        sent.found_there += sum(result.outcome == WriteResult.OUTCOME_DUPLICATE for result in results)
        due += BATCH * LANES / RATE
        await asyncio.sleep(max(0.0, due - loop.time()))


async def _acknowledged(
    client: Client, events: Sequence[UserEvent], sent: Sent, chance: random.Random
) -> Sequence[WriteResult]:
    request = WriteUserEventsRequest(events=events)
    while True:
        try:
            return (await client.ingest.WriteUserEvents(request, timeout=_CALL_S)).results
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AGAIN:
                raise
        sent.sent_again += 1
        await asyncio.sleep(chance.uniform(_PAUSE_S, 2 * _PAUSE_S))


class Killer:
    """Kills one victim after the other and brings it back."""

    def __init__(self, suite: Suite, postgres: PostgresServer, redis: RedisServer, seed: int) -> None:
        self._suite = suite
        self._servers = {"postgresql": postgres, "redis": redis}
        self._chance = random.Random(seed)
        self.killed: Counter[str] = Counter()

    async def run(self, kills: int) -> None:
        victims = [VICTIMS[number % len(VICTIMS)] for number in range(kills)]
        self._chance.shuffle(victims)
        for victim in victims:
            await asyncio.sleep(self._chance.uniform(0.05, 0.8))
            await self._kill(victim)
            self.killed[victim] += 1

    async def _kill(self, victim: str) -> None:
        if server := self._servers.get(victim):
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            return
        await self._suite.kill(victim)
        await self._suite.start(victim)
        # one that starts is a victim too: only every other one is waited for
        if self._chance.random() < 0.5:
            await self._suite.wait_ready([victim])


class Recount:
    """What the log holds, and a fold of it that nobody disturbed."""

    def __init__(self) -> None:
        self.state = State(Rules(row_sample_rate=ROW_SAMPLE_RATE))
        self._ids: Counter[str] = Counter()
        self._newest: dict[str, str] = defaultdict(str)
        self._out_of_order = 0

    async def read(self, log: EventLog) -> None:
        """Reads the log to its end."""
        while part := await log.read(self.state.offset, limit=5_000):
            for record in part:
                self.state.apply(fact_of(record))
                self._note(record)

    def _note(self, record: LoggedRecord) -> None:
        self._ids[record.event_id] += 1
        self._out_of_order += record.event_id < self._newest[record.key]
        self._newest[record.key] = record.event_id

    def found(self, sent: Sent, digest: str) -> Found:
        """The log and the feature store's digest held against what was acknowledged."""
        acknowledged = set(sent.acknowledged)
        return Found(
            lost=len(acknowledged - self._ids.keys()),
            doubled=sum(count - 1 for count in self._ids.values()),
            unknown=len(self._ids.keys() - acknowledged),
            out_of_order=self._out_of_order,
            is_folded_right=digest == self.state.copy().digest(),
        )


async def run(kills: int, seed: int) -> Result:
    """Kills `kills` times while events flow."""
    with tempfile.TemporaryDirectory() as folder, postgres_server() as postgres, redis_server() as redis:
        url = postgres.new_database()
        environment = {
            "HEADRACE_EVENT_LOG_URL": url,
            "HEADRACE_INGEST_DATABASE_URL": url,
            "HEADRACE_FEATURE_STORE_REDIS_URL": redis.url(),
            "HEADRACE_FEATURE_STORE_HOT_USERS": str(HOT),
            "HEADRACE_FEATURE_STORE_SNAPSHOT_EVERY_S": "0.5",
            "HEADRACE_FEATURE_STORE_ROW_SAMPLE_RATE": str(ROW_SAMPLE_RATE),
        }
        suite = Suite(Path(folder), services=SERVICES, environment=environment, restart=True)
        async with suite, suite.client() as client:
            killer, sent = Killer(suite, postgres, redis, seed), Sent()
            seconds = await _traffic(client, sent, lambda: killer.run(kills), seed)
            await suite.wait_ready()
            log, recount = open_event_log(CommonSettings(data_dir=Path(folder), event_log_url=url)), Recount()
            await recount.read(log)
            await log.close()
            folded = await _folded(client, recount.state.offset)
        found = recount.found(sent, folded.state_digest)
    return _result(kills, seed, seconds, killer.killed, sent, found)


async def _traffic(client: Client, sent: Sent, kill: Callable[[], Awaitable[None]], seed: int) -> float:
    """Lets events flow until the killing is done; for how long."""
    stop, begun = asyncio.Event(), time.monotonic()
    lanes = [
        asyncio.create_task(send(client, Shop(lane, seed), sent, stop, seed + lane), name=f"lane {lane}")
        for lane in range(LANES)
    ]
    await kill()
    stop.set()
    await asyncio.gather(*lanes)
    return time.monotonic() - begun


async def _folded(client: Client, offset: int) -> GetFeatureStoreStatusResponse:
    """The feature store's status once it is at the end of the log."""
    async with asyncio.timeout(_SETTLE_S):
        while True:
            request = GetFeatureStoreStatusRequest()
            if (await client.feature_store.GetFeatureStoreStatus(request, timeout=_CALL_S)).offset == offset:
                digested = GetFeatureStoreStatusRequest(with_digest=True)
                return await client.feature_store.GetFeatureStoreStatus(digested, timeout=_SETTLE_S)
            await asyncio.sleep(_PAUSE_S)


def _result(kills: int, seed: int, seconds: float, killed: Counter[str], sent: Sent, found: Found) -> Result:
    rate = len(sent.acknowledged) / seconds
    row = {
        "data": f"{PEOPLE:,} people, {ITEMS:,} items, batches of {BATCH}",
        "method": "SIGKILL at random moments",
        "kills": killed.total(),
        **{f"kills_of_{victim.replace('-', '_')}": killed[victim] for victim in VICTIMS},
        "seconds": round(seconds, 1),
        "acknowledged": len(sent.acknowledged),
        "acknowledged_per_s": round(rate, 1),
        "batches_sent_again": sent.sent_again,
        "found_there_when_sent_again": sent.found_there,
        "lost": found.lost,
        "doubled": found.doubled,
        "in_the_log_and_never_acknowledged": found.unknown,
        "out_of_order": found.out_of_order,
        "features_equal_a_recount": found.is_folded_right,
    }
    bars = [
        Bar.at_least("kills", kills, killed.total()),
        Bar.at_most("acknowledged events that are not in the log", 0, found.lost),
        Bar.at_most("events that are in the log twice", 0, found.doubled),
        Bar.at_most("events of one person out of their order", 0, found.out_of_order),
        Bar.at_least("features equal a recount of the log", 1, float(found.is_folded_right)),
    ]
    settings = {
        "rate": RATE,
        "lanes": LANES,
        "hot_users": HOT,
        "snapshot_every_s": 0.5,
        "row_sample_rate": ROW_SAMPLE_RATE,
    }
    return Result("kills", settings, [seed], [row], bars)


def main() -> None:
    parser = base_parser(__doc__, f"{QUICK_KILLS} kills")
    parser.add_argument("--kills", type=int, default=None, help=f"how many; {KILLS} unless --quick")
    arguments = parser.parse_args()
    kills = arguments.kills or (QUICK_KILLS if arguments.quick else KILLS)
    asyncio.run(run(kills, arguments.seed)).write(arguments.json)


if __name__ == "__main__":
    main()
