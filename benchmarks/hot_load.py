"""What do people notice when the ranker takes in new weights while they ask?

A ranker process over a shop of 10,000 products answers 100 requests a second (a Poisson process, open loop) while a
registry publishes a release every second: `python -m benchmarks.hot_load [--quick] [--seed N] --json PATH`.

- `calm`: no release comes.
- `loaded`: each is served as soon as it is loaded: the worst case. `during` are the requests whose appointed time
  lies between the plan's going out and the first answer by the new release.
- `shadowed`: as increments go: each is the shadow first, scored beside live requests, and is then swapped in.
- `undo`: from the plan to the first answer by the release before.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import uvloop
from rich.console import Console

from benchmarks.arguments import base_parser
from benchmarks.open_loop import Floats, Outcomes, arrivals, quantiles, sent
from benchmarks.planted_registry import Control, name_of, planted
from benchmarks.results import Bar, Result
from benchmarks.serving import Asking, fill
from benchmarks.serving import Scale as ShopScale
from headrace.cli.client import Client
from headrace.cli.suite import Suite
from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop
from headrace.v1 import trainer_pb2
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, GetRankerStatusResponse

RATE = 100
EVERY_S = 1.0
_DEADLINE_S = 1.0
_POLL_S = 0.01
_PRODUCTS = 10_000
_HISTORY = 8_000
_console = Console(stderr=True)


@dataclass(frozen=True)
class Swap:
    """When a plan went out and when the first answer came by its release, in seconds from the load's begin."""

    begin_s: float
    end_s: float


class Others:
    """How busy the machine is with what does not belong to the benchmark: latencies mean little where that is much."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), self._seconds()

    def share(self) -> float:
        """Of all cores, since the beginning."""
        took_s = time.perf_counter() - self._begun[0]
        return round((self._seconds() - self._begun[1]) / took_s / (os.cpu_count() or 1), 3)

    @staticmethod
    def _seconds() -> float:
        own = psutil.Process()
        times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
        whole = psutil.cpu_times()
        return whole.user + whole.system + whole.nice - sum(each.user + each.system for each in times)


@dataclass(frozen=True)
class Run:
    """One load with the swaps in it."""

    outcomes: Outcomes
    times_s: Floats
    others_cpu: float
    swaps: Sequence[Swap] = ()

    def during(self) -> Floats:
        """Milliseconds of the requests of swaps."""
        inside = np.zeros(len(self.times_s), np.bool_)
        for swap in self.swaps:
            inside |= (self.times_s >= swap.begin_s) & (self.times_s <= swap.end_s)
        return self.outcomes.ms[inside]

    def between(self) -> Floats:
        """Milliseconds of the other requests, an EVERY_S / 2 after each swap left out."""
        apart = np.ones(len(self.times_s), np.bool_)
        for swap in self.swaps:
            apart &= (self.times_s < swap.begin_s) | (self.times_s > swap.end_s + EVERY_S / 2)
        return self.outcomes.ms[apart]

    def row(self, method: str) -> dict[str, object]:
        seconds = np.array([swap.end_s - swap.begin_s for swap in self.swaps])
        during = self.during()
        row = {
            "data": "simulated shop",
            "method": method,
            "requests": len(self.outcomes.what),
            # of all cores, by processes that have nothing to do with this
            "others_cpu": self.others_cpu,
            "failed": self.failed,
            "failures": dict(Counter(what for what in self.outcomes.what if what not in ("ok", "degraded"))),
            "degraded": len(self.outcomes.of("degraded")),
            **quantiles(self.outcomes.ms),
            "swaps": len(self.swaps),
            "swap_p50_s": round(float(np.median(seconds)), 3) if len(seconds) else 0.0,
            "requests_during": len(during),
            **{f"during_{name}": ms for name, ms in quantiles(during).items()},
            **{f"between_{name}": ms for name, ms in quantiles(self.between()).items()},
        }
        _console.print(row)
        return row

    @property
    def failed(self) -> int:
        return len(self.outcomes.what) - len(self.outcomes.of("ok")) - len(self.outcomes.of("degraded"))


class HotLoad:
    """A ranker under load, and the registry that it follows."""

    def __init__(self, client: Client, registry: Control, asking: Asking, seed: int) -> None:
        self._client = client
        self._registry = registry
        self._asking = asking
        self._seed = seed
        self._number = 1

    async def calm(self, seconds: float) -> Run:
        self._seed += 1
        times_s = arrivals(RATE, seconds, self._seed)
        others = Others()
        outcomes = await sent(times_s, self._asking.send(_DEADLINE_S))
        return Run(outcomes, times_s, others.share())

    async def swapping(self, seconds: float, *, with_shadow: bool) -> Run:
        self._seed += 1
        times_s = arrivals(RATE, seconds, self._seed)
        others, begun = Others(), time.perf_counter()
        load = asyncio.create_task(sent(times_s, self._asking.send(_DEADLINE_S)))
        swaps: list[Swap] = []
        while time.perf_counter() - begun < seconds - EVERY_S:
            await asyncio.sleep(EVERY_S)
            swaps.append(await self._swap(begun, with_shadow))
        return Run(await load, times_s, others.share(), swaps)

    async def _swap(self, begun: float, with_shadow: bool) -> Swap:
        self._number += 1
        went_out = time.perf_counter() - begun
        await self._registry.plan(self._number, self._number + 1 if with_shadow else 0)
        await self.serves(self._number)
        end_s = time.perf_counter() - begun
        if with_shadow:
            # its loading is what the swap costs
            await self._until(lambda status: status.shadow_release == name_of(self._number + 1))
            end_s = time.perf_counter() - begun
        return Swap(went_out, end_s)

    async def undo_s(self) -> float:
        """Seconds back to the release before."""
        begun = time.perf_counter()
        await self._registry.plan(self._number - 1)
        await self.serves(self._number - 1)
        return time.perf_counter() - begun

    async def serves(self, number: int) -> None:
        await self._until(lambda status: status.release == name_of(number))

    async def _until(self, holds: Callable[[GetRankerStatusResponse], bool]) -> None:
        while not holds(await self._client.ranker.GetRankerStatus(GetRankerStatusRequest())):  # noqa: ASYNC110  # asked of another process
            await asyncio.sleep(_POLL_S)


async def fetch(client: Client, folder: Path) -> None:
    """Writes the trainer's newest release and its parts."""
    listed = await client.trainer.ListReleases(trainer_pb2.ListReleasesRequest(page_size=1))
    release = listed.releases[0]
    folder.mkdir()
    (folder / "release.pb").write_bytes(release.SerializeToString())
    for part in release.parts:
        request = trainer_pb2.FetchArtifactRequest(release=release.release, part=part.name)
        chunks = [chunk.data async for chunk in client.trainer.FetchArtifact(request)]
        (folder / part.name).write_bytes(b"".join(chunks))


async def measured(seconds: float, seed: int) -> tuple[list[dict[str, object]], list[Bar]]:
    """Rows and bars."""
    shop = SimulatedShop(ShopSettings(products=_PRODUCTS, users=5_000, days=8))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        suite = await stack.enter_async_context(Suite(folder, ready_timeout_s=180))
        client = await stack.enter_async_context(suite.client())
        people = await fill(client, shop, ShopScale(_PRODUCTS, _HISTORY, 0.0, (), ()))
        await fetch(client, folder / "release")
        await suite.stop("trainer")
        registry = await stack.enter_async_context(planted(folder / "release"))
        await registry.plan(1)
        suite.addresses["trainer"] = registry.address
        await suite.restart("ranker")
        hot = HotLoad(client, registry, Asking(client, people, shop.products_by_number, seed), seed)
        await hot.serves(1)
        # the shop's events are garbage to nobody, and looking through them would hold up the load
        gc.collect()
        gc.freeze()
        # past the first collections of the ranker's garbage
        await hot.calm(16.0)
        calm = await hot.calm(seconds)
        loaded = await hot.swapping(seconds, with_shadow=False)
        undo_s = await hot.undo_s()
        shadowed = await hot.swapping(seconds, with_shadow=True)
        rows = [calm.row("calm"), loaded.row("loaded"), shadowed.row("shadowed")]
        rows.append({"data": "simulated shop", "method": "undo", "seconds": round(undo_s, 3)})
        return rows, _bars(calm, loaded, shadowed, undo_s)


def _bars(calm: Run, loaded: Run, shadowed: Run, undo_s: float) -> list[Bar]:
    before = quantiles(calm.outcomes.ms)["p99_ms"]
    times = {
        name: round(quantiles(run.during())["p99_ms"] / before, 2)
        for name, run in (("loads", loaded), ("is shadow", shadowed))
    }
    return [
        Bar.at_most("requests that failed", 0, calm.failed + loaded.failed + shadowed.failed),
        *(Bar.at_most(f"p99 while a release {what}, over before", 1.5, value) for what, value in times.items()),
        Bar.at_most("seconds to undo", 5.0, round(undo_s, 3)),
    ]


def main() -> None:
    parser = base_parser(__doc__, quick="loads of 10 s", seed=7)
    arguments = parser.parse_args()
    seconds = 10.0 if arguments.quick else 35.0
    rows, bars = uvloop.run(measured(seconds, arguments.seed))
    settings = {
        "products": _PRODUCTS,
        "events": _HISTORY,
        "seconds": seconds,
        "requests_per_s": RATE,
        "release_every_s": EVERY_S,
        # started by `chrt -r 1`, all of it goes before whatever else the machine does
        "goes_first": os.sched_getscheduler(0) != os.SCHED_OTHER,
    }
    Result("hot_load", settings, [arguments.seed], rows, bars).write(arguments.json)


if __name__ == "__main__":
    main()
