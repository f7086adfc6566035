"""What do users notice of a canary that fails? They get no error, and wait no longer than without one.

The suite's own processes, two rankers behind a plan that puts half of the people on the canary, and the load beside
them on one machine: `python -m benchmarks.canary [--quick] [--part latency|errors] [--seed N] --json PATH`.

- `latency`: requests as a Poisson process (open loop) with nobody on the canary, and with one that is frozen in the
  midst (SIGSTOP); then its process is replaced.
- `errors`: a fixed number of requests, eight at a time, with a canary that is killed or frozen in the midst, is slow
  (10 ×), answers NaN, or as rankers did before there were tracks; with none behind the address, and an address that
  does not resolve. Any status but OK is an error, and so is an answer without products, or one with a score that is
  not finite.

There is no rival: no open server of recommendations hides a failed canary. What it replaces is the same canary with
its breaker never open: `frozen, no breaker`.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import uvloop
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.arguments import base_parser
from benchmarks.faulty_canary import FaultyProcess
from benchmarks.open_loop import Outcomes, Send, arrivals, quantiles, sent
from benchmarks.plan_relay import PlanRelay, served_plan
from benchmarks.ranker_process import RankerProcess, free_port, polled
from benchmarks.results import Bar, Result
from benchmarks.serving import Asking, Scale, fill
from headrace.cli.suite import Suite
from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop
from headrace.model.arms import CANARY, arm_of
from headrace.ranker.assignment import key_of
from headrace.runtime.channels import open_channel
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, RecommendRequest
from headrace.v1.ranker_pb2_grpc import RankerServiceStub

if TYPE_CHECKING:
    from headrace.v1.ranker_pb2_grpc import RankerServiceAsyncStub

SHARE_BP = 5_000
# long, so that a machine which stalls is not taken for an error; the canary's part is bounded by the ranker's setting
_TIMEOUT_S = 5.0
_AT_ONCE = 8
_BEFORE_FAULT = 0.2
# the first failures are behind us and the breaker is open
_OPEN_AFTER_S = 1.0
_console = Console(stderr=True)


@dataclass(frozen=True)
class Sizes:
    """How much is asked."""

    shop: Scale
    rate: int
    seconds: float
    calls: int


FULL = Sizes(Scale(20_000, 20_000, 0, (), ()), 100, 40.0, 10_000)
QUICK = Sizes(Scale(2_000, 4_000, 0, (), ()), 100, 8.0, 600)


class Bench:
    """The suite with a plan of our own, and people who ask."""

    def __init__(
        self, suite: Suite, relay: PlanRelay, relay_address: str, requests: Sequence[RecommendRequest]
    ) -> None:
        self.relay = relay
        self._suite = suite
        self._relay_address = relay_address
        self._requests = requests
        self.is_canary = np.array([_arm(relay.rollout, request) == CANARY for request in requests], np.bool_)

    def ranker(self, **settings: str) -> RankerProcess:
        return RankerProcess(self._suite, self._relay_address, free_port(), **settings)

    @asynccontextmanager
    async def door(self, canary_address: str, **settings: str) -> AsyncIterator[Asker]:
        """A stable ranker in front of a canary; ended with the context."""
        ranker = self.ranker(CANARY_ADDRESS=canary_address, **settings)
        try:
            await ranker.start(self.relay.release)
            async with open_channel(ranker.address) as channel:
                asker = Asker(RankerServiceStub(channel), self._requests)
                # caches and channels are warm before anything is counted
                await hammered(200, asker.ask)
                yield asker
        finally:
            await ranker.stop()


class Asker:
    """Asks one ranker, and keeps which track answered."""

    def __init__(self, stub: RankerServiceAsyncStub, requests: Sequence[RecommendRequest]) -> None:
        self.stub = stub
        self.tracks: Counter[str] = Counter()
        self._requests = requests

    async def ask(self, number: int) -> str:
        try:
            answer = await self.stub.Recommend(self._requests[number % len(self._requests)], timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        self.tracks[answer.info.track] += 1
        if not answer.results:
            return "empty"
        return "ok" if all(math.isfinite(result.score) for result in answer.results) else "not finite"

    async def fallbacks(self) -> int:
        return (await self.stub.GetRankerStatus(GetRankerStatusRequest())).fallbacks

    async def until_canary(self) -> None:
        """Waits until the canary answers somebody; people go on coming, 50 a second."""
        before, numbers = self.tracks[CANARY], itertools.count()

        async def is_asked() -> bool:
            await self.ask(next(numbers))
            return self.tracks[CANARY] > before

        await polled(is_asked)


def _arm(rollout: str, request: RecommendRequest) -> str:
    return arm_of(rollout, SHARE_BP, key_of(request.visitor_id, request.user_id))


async def hammered(count: int, send: Send) -> Outcomes:
    """Calls `send` with 0 … count, eight at a time."""
    numbers, ms, what = iter(range(count)), np.zeros(count), [""] * count
    begun = time.perf_counter()

    async def work() -> None:
        for number in numbers:
            at = time.perf_counter()
            what[number] = await send(number)
            ms[number] = (time.perf_counter() - at) * 1e3

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return Outcomes(ms, what, time.perf_counter() - begun)


async def latencies(bench: Bench, sizes: Sizes, seed: int) -> tuple[list[dict[str, object]], list[Bar]]:
    """Share 0 beside a frozen canary, and how soon a replaced one is asked."""
    canary, rows = bench.ranker(TRACK=CANARY), []
    due = arrivals(sizes.rate, sizes.seconds, seed)
    places = np.arange(len(due)) % len(bench.is_canary)
    is_canary, is_after = bench.is_canary[places], due > _BEFORE_FAULT * sizes.seconds + _OPEN_AFTER_S
    try:
        await canary.start(bench.relay.release)
        async with bench.door(canary.address) as asker:
            await bench.relay.share(0)
            none = await sent(due, asker.ask)
            rows.append(_row("share 0", none, asker, 0))
            await bench.relay.share(SHARE_BP)
            await asker.until_canary()
            before = await asker.fallbacks()
            frozen = await _failing(canary.freeze, _BEFORE_FAULT * sizes.seconds, sent(due, asker.ask))
            rows.append(_row("frozen", frozen, asker, await asker.fallbacks() - before))
            rows.append({"method": "frozen, canary arm, open", **quantiles(frozen.ms[is_canary & is_after])})
            rows.append({"method": "frozen, stable arm, open", **quantiles(frozen.ms[~is_canary & is_after])})
            resumed_s = await _resumed(bench, canary, asker)
        async with bench.door(canary.address, BREAKER_FAILURES="1000000000") as asker:
            await asker.until_canary()
            short = due[due < sizes.seconds / 4]
            unbroken = await _failing(canary.freeze, 1.0, sent(short, asker.ask))
            rows.append(_row("frozen, no breaker", unbroken, asker, await asker.fallbacks()))
            arm = unbroken.ms[is_canary[: len(short)] & (short > 1.0 + _OPEN_AFTER_S)]
            rows.append({"method": "frozen, no breaker, canary arm", **quantiles(arm)})
    finally:
        await canary.stop()
    over = _p99(frozen.ms) / _p99(none.ms)
    arms = _p99(frozen.ms[is_canary & is_after]) / _p99(frozen.ms[~is_canary & is_after])
    bars = [
        *_error_bars({"share 0": none, "frozen": frozen}),
        Bar.at_most("frozen: p99 over that of share 0", 1.5, round(over, 3)),
        Bar.at_most("frozen, breaker open: p99 of the canary arm over that of the stable arm", 2.0, round(arms, 3)),
        Bar.at_most("seconds until a replaced canary is asked", 3.0, round(resumed_s, 3)),
    ]
    return rows, bars


def _p99(ms: NDArray[np.float64]) -> float:
    return float(np.quantile(ms, 0.99))


async def _failing(fail: Callable[[], object], after_s: float, load: Awaitable[Outcomes]) -> Outcomes:
    task = asyncio.ensure_future(load)
    await asyncio.sleep(after_s)
    failing = fail()
    if isinstance(failing, Awaitable):
        await failing
    return await task


async def _resumed(bench: Bench, canary: RankerProcess, asker: Asker) -> float:
    """Seconds from the new process being ready to its first answer to a user; people go on asking meanwhile."""
    await canary.stop()
    asking = asyncio.create_task(asker.until_canary())
    await canary.start(bench.relay.release)
    ready = time.perf_counter()
    await asking
    return time.perf_counter() - ready


async def errors(bench: Bench, sizes: Sizes) -> tuple[list[dict[str, object]], list[Bar]]:
    """What users see of each way to fail."""
    rows: list[dict[str, object]] = []
    found: dict[str, Outcomes] = {}
    await bench.relay.share(SHARE_BP)

    async def held(name: str, asker: Asker, load: Awaitable[Outcomes]) -> None:
        before = await asker.fallbacks()
        found[name] = await load
        rows.append(_row(name, found[name], asker, await asker.fallbacks() - before))

    canary = bench.ranker(TRACK=CANARY)
    try:
        await canary.start(bench.relay.release)
        for fault in ("slow", "nan", "old-schema"):
            async with _faulty(canary.address, fault) as address, bench.door(address) as asker:
                await held(fault, asker, hammered(sizes.calls, asker.ask))
        async with bench.door(canary.address) as asker:
            for name, fail in (("killed", canary.stop), ("frozen", canary.freeze)):
                await asker.until_canary()
                await held(name, asker, _failing(fail, 1.0, hammered(sizes.calls, asker.ask)))
                await canary.stop()
                await canary.start(bench.relay.release)
    finally:
        await canary.stop()
    for name, address in (
        ("zero replicas", f"127.0.0.1:{free_port()}"),
        ("unresolvable", "ranker-canary.nowhere.invalid:7405"),
    ):
        async with bench.door(address) as asker:
            await held(name, asker, hammered(sizes.calls, asker.ask))
    return rows, _error_bars(found)


@asynccontextmanager
async def _faulty(before: str, fault: str) -> AsyncIterator[str]:
    process = FaultyProcess(before, fault)
    await process.start()
    try:
        yield process.address
    finally:
        await process.kill()


def _row(name: str, outcomes: Outcomes, asker: Asker, fallbacks: int) -> dict[str, object]:
    row = {
        "method": name,
        "calls": len(outcomes.what),
        "errors": len(outcomes.what) - len(outcomes.of("ok")),
        "outcomes": dict(Counter(outcomes.what)),
        "by_canary": asker.tracks[CANARY],
        "fallbacks": fallbacks,
        **quantiles(outcomes.ms),
    }
    asker.tracks.clear()
    _console.print(row)
    return row


def _error_bars(found: dict[str, Outcomes]) -> list[Bar]:
    return [
        Bar.at_most(f"{name}: errors in {len(each.what)} calls", 0, len(each.what) - len(each.of("ok")))
        for name, each in found.items()
    ]


async def measured(sizes: Sizes, part: str, seed: int) -> tuple[list[dict[str, object]], list[Bar]]:
    """Rows and bars."""
    shop = SimulatedShop(ShopSettings(products=sizes.shop.products, users=10_000, days=8))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        suite = await stack.enter_async_context(Suite(folder, ready_timeout_s=180))
        client = await stack.enter_async_context(suite.client())
        people = await fill(client, shop, sizes.shop)
        # our own take its place
        await suite.stop("ranker")
        relay = await PlanRelay.of(client.trainer)
        relay_address = await stack.enter_async_context(served_plan(relay))
        # what is empty for most people in any case cannot tell a canary's fault
        requests = [
            request
            for request in Asking(client, people, shop.products_by_number, seed).requests
            if request.serving_config in ("home", "similar-items")
        ]
        bench = Bench(suite, relay, relay_address, requests)
        rows: list[dict[str, object]] = []
        bars: list[Bar] = []
        if part in ("latency", "all"):
            more_rows, more_bars = await latencies(bench, sizes, seed)
            rows, bars = rows + more_rows, bars + more_bars
        if part in ("errors", "all"):
            more_rows, more_bars = await errors(bench, sizes)
            rows, bars = rows + more_rows, bars + more_bars
        return [{"data": "simulated shop", **row} for row in rows], bars


def main() -> None:
    parser = base_parser(__doc__, quick="a shop of 2,000 products, loads of 8 s and 600 calls", seed=11)
    parser.add_argument("--part", choices=("latency", "errors", "all"), default="all")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    rows, bars = uvloop.run(measured(sizes, arguments.part, arguments.seed))
    settings = {
        "products": sizes.shop.products,
        "events": sizes.shop.history,
        "share_bp": SHARE_BP,
        "requests_per_s": sizes.rate,
        "seconds": sizes.seconds,
        "calls": sizes.calls,
        "at_once": _AT_ONCE,
        "deadline_s": _TIMEOUT_S,
        "part": arguments.part,
    }
    Result("canary", settings, [arguments.seed], rows, bars).write(arguments.json)


if __name__ == "__main__":
    main()
