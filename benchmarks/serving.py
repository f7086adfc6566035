"""How quickly does the whole suite answer, what does an answer cost, and what happens when too many ask?

Five services as separate processes, a shop of 50,000 products and the load beside them on one machine:
`python -m benchmarks.serving [--quick] [--seed N] --json PATH`. Requests come as a Poisson process (open loop) and
count from their appointed time. People are the shop's own, one in five a visitor whom nobody has seen.

- `echo`: the floor, a bare grpc.aio server in the same run.
- CPU of a request: what the processes used, less what they use with nobody asking, by service.
- `parts`: the same answers' arithmetic alone in one process, and bare calls as many as an answer takes.
- overload: three times the greatest rate that was held, with a deadline on each request.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import grpc
import numpy as np
import uvloop
from rich.console import Console

from benchmarks.answer_parts import arithmetic_ms
from benchmarks.arguments import base_parser
from benchmarks.echo import METHOD, running_echo
from benchmarks.open_loop import Floats, Outcomes, Send, arrivals, quantiles, sent
from benchmarks.results import Bar, Result
from headrace.cli.asking import caught_up, learned
from headrace.cli.client import Client
from headrace.cli.sending import Sender
from headrace.cli.suite import Suite
from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop
from headrace.v1.common_pb2 import UserEvent
from headrace.v1.ranker_pb2 import RecommendRequest

# of every hundred requests
MIX = {"home": 70, "similar-items": 20, "frequently-bought-together": 5, "recently-viewed": 5}
STRANGERS = 0.2
DEADLINE_S = 0.1
P99_LIMIT_MS = 50.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_SIZE = 20
_SETTLE_S = 15.0
# what the others do, they do whether anybody asks or not
_ON_THE_WAY = ("feature-store", "index", "ranker")
_console = Console(stderr=True)


@dataclass(frozen=True)
class Scale:
    """How large the shop is and how long each load lasts."""

    products: int
    history: int
    seconds: float
    rates: tuple[int, ...]
    climb: tuple[int, ...]


FULL = Scale(50_000, 30_000, 20.0, (50, 200), tuple(range(300, 1_001, 50)))
QUICK = Scale(3_000, 6_000, 4.0, (50, 200), (300, 400))


class Asking:
    """Requests of the shop's people, the same for the same seed."""

    def __init__(self, client: Client, people: list[str], products: list[str], seed: int) -> None:
        chance = random.Random(seed)
        configs = chance.choices(list(MIX), list(MIX.values()), k=20_000)
        self.requests = [self._request(chance, config, people, products) for config in configs]
        self._ranker = client.ranker

    @staticmethod
    def _request(chance: random.Random, config: str, people: list[str], products: list[str]) -> RecommendRequest:
        request = RecommendRequest(serving_config=config, page_size=_PAGE_SIZE)
        if chance.random() < STRANGERS:
            request.visitor_id = f"stranger-{chance.randrange(10**9)}"
        else:
            request.user_id = chance.choice(people)
        if config in ("similar-items", "frequently-bought-together"):
            request.product_ids.append(chance.choice(products))
        return request

    def send(self, timeout_s: float) -> Send:
        async def ask(number: int) -> str:
            try:
                answer = await self._ranker.Recommend(self.requests[number % len(self.requests)], timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "degraded" if answer.info.degraded_reasons else "ok"

        return ask


class Cpu:
    """CPU seconds that processes have used."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)

    def now(self) -> dict[str, float]:
        return {name: _cpu_s(pid) for name, pid in self._pids.items()}

    async def idle_shares(self, seconds: float) -> dict[str, float]:
        """CPU seconds a second with nobody asking."""
        before = self.now()
        await asyncio.sleep(seconds)
        after = self.now()
        return {name: (after[name] - before[name]) / seconds for name in before}


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


@dataclass(frozen=True)
class Load:
    """A rate as it was held, and CPU milliseconds of a request by process."""

    rate: int
    outcomes: Outcomes
    cpu_ms: dict[str, float]

    @property
    def answered(self) -> Floats:
        """Milliseconds of the requests that were answered, whole or not."""
        return np.concatenate([self.outcomes.of("ok"), self.outcomes.of("degraded")])

    def row(self, method: str) -> dict[str, object]:
        answered = self.answered
        return {
            "data": "simulated shop",
            "method": method,
            "requests_per_s": self.rate,
            "answered": len(answered),
            "degraded": round(self.outcomes.share("degraded"), 4),
            "failed": len(self.outcomes.what) - len(answered),
            **quantiles(answered),
            "cpu_ms": {name: round(ms, 3) for name, ms in self.cpu_ms.items()},
            "cpu_ms_total": round(sum(self.cpu_ms.values()), 3),
        }

    @property
    def holds(self) -> bool:
        """Whether every request was answered whole, with its p99 in the limit."""
        return self.outcomes.share("ok") >= 0.999 and float(np.quantile(self.outcomes.ms, 0.99)) <= P99_LIMIT_MS


async def loaded(rate: int, seconds: float, send: Send, cpu: Cpu, idle: Mapping[str, float], seed: int) -> Load:
    """Sends at a rate for some seconds."""
    before = cpu.now()
    outcomes = await sent(arrivals(rate, seconds, seed), send)
    after = cpu.now()
    used = {name: after[name] - before[name] - idle.get(name, 0.0) * outcomes.seconds for name in before}
    load = Load(rate, outcomes, {name: 1e3 * s / max(1, len(outcomes.what)) for name, s in used.items()})
    _console.print(load.row("load"))
    return load


async def echoed(scale: Scale, message_bytes: int, seed: int) -> Load:
    """The floor: a bare call with messages of the size of a request."""
    async with running_echo() as (pid, address), grpc.aio.insecure_channel(address) as channel:
        call, message = channel.unary_unary(METHOD), bytes(message_bytes)

        async def send(number: int) -> str:
            await call(message)
            return "ok"

        cpu = Cpu({"echo": pid, "load": os.getpid()})
        await sent(arrivals(50, 1.0, seed), send)
        return await loaded(200, scale.seconds, send, cpu, {}, seed)


async def fill(client: Client, shop: SimulatedShop, scale: Scale) -> list[str]:
    """Tells the suite of the shop and its newest history; the people in it."""
    products = [product for batch in shop.products() for product in batch]
    events = list(islice((event for batch in shop.events() for event in batch), scale.history))
    shift_s = int(datetime.now(UTC).timestamp()) - max(_times(events)) - 60
    for event in events:
        event.event_time.seconds += shift_s
    for product in products:
        product.publish_time.Clear()
    async with Sender(client.ingest) as sender:
        await sender.write_products(products)
        await sender.send(events)
    await caught_up(client, sender.counts.newest_offset)
    await learned(client, sender.counts.newest_offset)
    return sorted({event.user_id for event in events if event.user_id})


def _times(events: list[UserEvent]) -> list[int]:
    # the shop plants events in a far year among its faults
    return [s for event in events if (s := event.event_time.seconds) < datetime(2080, 1, 1, tzinfo=UTC).timestamp()]


async def climbed(scale: Scale, hold: Callable[[int], Awaitable[Load]]) -> list[Load]:
    """Loads of growing rates, until one is not held."""
    loads: list[Load] = []
    for rate in scale.climb:
        loads.append(await hold(rate))
        if not loads[-1].holds:
            break
    return loads


@dataclass(frozen=True)
class Overload:
    """What became of three times too many requests, and how soon after it answers were whole again."""

    load: Load
    recovery_s: float


async def overloaded(asking: Asking, capacity: int, cpu: Cpu, idle: Mapping[str, float], seed: int) -> Overload:
    load = await loaded(3 * capacity, 8.0, asking.send(2 * DEADLINE_S), cpu, idle, seed)
    times = arrivals(50, 5.0, seed)
    after = await sent(times, asking.send(DEADLINE_S))
    late = [times[place] for place, what in enumerate(after.what) if what != "ok"]
    return Overload(load, round(float(max(late, default=0.0)), 2))


async def measured(scale: Scale, seed: int) -> tuple[list[dict[str, object]], list[Bar]]:
    """Rows and bars."""
    shop = SimulatedShop(ShopSettings(products=scale.products, users=20_000, days=8))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        suite = await stack.enter_async_context(Suite(folder, ready_timeout_s=180))
        client = await stack.enter_async_context(suite.client())
        people = await fill(client, shop, scale)
        asking = Asking(client, people, shop.products_by_number, seed)
        cpu = Cpu({name: suite.pid(name) for name in _ON_THE_WAY} | {"load": os.getpid()})
        await sent(arrivals(50, 3.0, seed), asking.send(5.0))
        # snapshots and releases that the filling has left to do
        await asyncio.sleep(_SETTLE_S)
        idle = await cpu.idle_shares(5.0)
        echo = await echoed(scale, asking.requests[0].ByteSize(), seed)
        steady = {
            rate: await loaded(rate, scale.seconds, asking.send(1.0), cpu, idle, seed + rate) for rate in scale.rates
        }
        climb = await climbed(
            scale, lambda rate: loaded(rate, scale.seconds / 2, asking.send(1.0), cpu, idle, seed + rate)
        )
        held = max([load.rate for load in [*steady.values(), *climb] if load.holds], default=0)
        over = await overloaded(asking, max(held, scale.rates[-1]), cpu, idle, seed)
        parts = await arithmetic_ms(client, asking.requests[:400])
        return _rows(echo, steady, climb, over, parts), _bars(echo, steady, held, over, parts)


def _rows(
    echo: Load, steady: Mapping[int, Load], climb: list[Load], over: Overload, parts: Mapping[str, float]
) -> list[dict[str, object]]:
    refused = over.load.outcomes.of("RESOURCE_EXHAUSTED")
    return [
        echo.row("echo"),
        *(load.row("recommend") for load in steady.values()),
        *(load.row("recommend, climbing") for load in climb),
        {
            **over.load.row("overload"),
            "refused": len(refused),
            "refused_p99_ms": quantiles(refused).get("p99_ms"),
            "recovery_s": over.recovery_s,
        },
        {"data": "simulated shop", "method": "parts", **parts},
    ]


def _bars(echo: Load, steady: Mapping[int, Load], held: int, over: Overload, parts: Mapping[str, float]) -> list[Bar]:
    calm, busy = steady[50], steady[200]
    ms = quantiles(calm.outcomes.ms)
    whole = sum(parts.values()) + 3 * sum(echo.cpu_ms.values())
    answered, refused = quantiles(over.load.answered), quantiles(over.load.outcomes.of("RESOURCE_EXHAUSTED"))
    return [
        Bar.at_most("p50 at 50 requests/s, ms", 4.0, ms["p50_ms"]),
        Bar.at_most("p99 at 50 requests/s, ms", 15.0, ms["p99_ms"]),
        Bar.at_least("requests/s with p99 within 50 ms", 400, held),
        Bar.at_most("CPU of an answer over that of its parts", 2.0, round(sum(busy.cpu_ms.values()) / whole, 2)),
        Bar.at_most("overload: p99 of answers, ms", 2e3 * DEADLINE_S, answered.get("p99_ms", np.inf)),
        Bar.at_most("overload: p99 of refusals, ms", 5.0, refused.get("p99_ms", np.inf)),
        Bar.at_most("overload: seconds until all is well", 2.0, over.recovery_s),
    ]


def main() -> None:
    parser = base_parser(__doc__, quick="a shop of 3,000 products and loads of 4 s", seed=11)
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    rows, bars = uvloop.run(measured(scale, arguments.seed))
    settings = {
        "products": scale.products,
        "events": scale.history,
        "seconds": scale.seconds,
        "mix": MIX,
        "strangers": STRANGERS,
        "page_size": _PAGE_SIZE,
        "deadline_s_in_overload": DEADLINE_S,
    }
    Result("serving", settings, [arguments.seed], rows, bars).write(arguments.json)


if __name__ == "__main__":
    main()
