"""How long until the suite's answers know of what just happened, while 200 events a second flow?

Five services as separate processes, the load and the probes beside them, all on one machine:
`python -m benchmarks.freshness [--quick] [--seed N] --json PATH`.

- click_to_answer_ms: a visitor's view sent → `Recommend` (home) made from it, and different from before.
- product_to_search_ms: a product sent → found by `Search`; product_to_similar_ms: → found by `Recommend` similar.
- event_to_served_vector_ms: a view sent → the item's learned vector applied by the index and held by the ranker.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.progress import Progress

from benchmarks.arguments import base_parser
from benchmarks.results import Bar, Result
from headrace.cli.asking import caught_up
from headrace.cli.client import Client
from headrace.cli.probes import Probes, ordinals_by_product
from headrace.cli.sending import Sender
from headrace.cli.suite import Suite
from headrace.datasets.source import SIMULATED_SHOP, find
from headrace.v1.common_pb2 import UserEvent
from headrace.v1.ingest_pb2 import WriteUserEventsRequest

EVENTS_PER_S = 200
BATCH_EVERY_S = 0.05
HISTORY = 20_000


@dataclass(frozen=True)
class Probe:
    """One kind of probe: its key, the bars on its quantiles, and how it is run."""

    key: str
    run: Callable[[int], Awaitable[float]]
    pause_s: float


async def measure(probes_each: int, history: int, seed: int) -> tuple[dict[str, list[float]], float]:
    """Milliseconds of every probe by key, and the events per second that flowed beside them."""
    dataset = find(SIMULATED_SHOP)
    with tempfile.TemporaryDirectory() as folder:
        async with Suite(Path(folder)) as suite, suite.client() as client:
            products = [product for batch in dataset.products() for product in batch]
            events = (event for batch in dataset.events() for event in batch)
            shift_s = datetime.now(UTC).timestamp() - dataset.span.start.timestamp() - _length_s(history)
            async with Sender(client.ingest) as sender:
                await sender.write_products(products)
                await sender.send([_shifted(event, shift_s) for event in islice(events, history)])
            await caught_up(client, sender.counts.newest_offset)
            ordinals = await ordinals_by_product(client)
            chance = random.Random(seed)
            known = [product.id for product in products if product.id in ordinals]
            async with flowing(client, events) as flow:
                measured = await _probed(client, known, ordinals, chance, probes_each)
            return measured, flow.rate()


def _length_s(history: int) -> float:
    """How long the history lasts: the time of its last event after the shop's first."""
    dataset = find(SIMULATED_SHOP)
    events = (event for batch in dataset.events() for event in batch)
    newest = max(event.event_time.seconds for event in islice(events, history))
    return newest - dataset.span.start.timestamp() + 1


async def _probed(
    client: Client, known: list[str], ordinals: dict[str, int], chance: random.Random, probes_each: int
) -> dict[str, list[float]]:
    probes = Probes(client, run=f"probe{chance.randrange(10**6)}")
    kinds = [
        Probe("click_to_answer_ms", lambda n: probes.click_to_answer_ms(n, chance.choice(known), _now()), 0.1),
        Probe("product_to_search_ms", lambda n: probes.product_to_search_ms(n, "a fresh teapot"), 0.2),
        Probe("product_to_similar_ms", lambda n: probes.product_to_similar_ms(n, f"a rare {n} lantern"), 0.2),
        Probe("event_to_served_vector_ms", lambda n: _vector_probe(probes, n, known, ordinals, chance), 0.1),
    ]
    with Progress(console=Console(stderr=True)) as progress:
        bars = {kind.key: progress.add_task(kind.key, total=probes_each) for kind in kinds}
        values = await asyncio.gather(
            *(_repeat(kind, probes_each, chance, lambda key: progress.advance(bars[key])) for kind in kinds)
        )
    return {kind.key: value for kind, value in zip(kinds, values, strict=True)}


async def _vector_probe(
    probes: Probes, number: int, known: list[str], ordinals: dict[str, int], chance: random.Random
) -> float:
    earlier, product_id = chance.sample(known, 2)
    return await probes.event_to_served_vector_ms(number, earlier, product_id, ordinals[product_id], _now())


async def _repeat(kind: Probe, times: int, chance: random.Random, advance: Callable[[str], None]) -> list[float]:
    values = []
    for number in range(times):
        values.append(await kind.run(number))
        advance(kind.key)
        # unrelated to any period inside the suite
        await asyncio.sleep(chance.uniform(0.5, 1.5) * kind.pause_s)
    return values


class Flow:
    """Events sent so far, and since when."""

    def __init__(self) -> None:
        self.sent = 0
        self._begun = asyncio.get_running_loop().time()
        self._ended: float | None = None

    def end(self) -> None:
        self._ended = asyncio.get_running_loop().time()

    def rate(self) -> float:
        assert self._ended is not None, "end() comes first"
        return self.sent / (self._ended - self._begun)


@asynccontextmanager
async def flowing(client: Client, events: Iterator[UserEvent]) -> AsyncIterator[Flow]:
    """EVENTS_PER_S of the shop's events, stamped with the present, until the context ends."""
    flow = Flow()
    pump = asyncio.create_task(_pump(client, events, flow))
    try:
        yield flow
    finally:
        flow.end()
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(client: Client, events: Iterator[UserEvent], flow: Flow) -> None:
    size = round(EVENTS_PER_S * BATCH_EVERY_S)
    loop = asyncio.get_running_loop()
    due = loop.time()
    while batch := [_stamped(event) for event in islice(events, size)]:
        await client.ingest.WriteUserEvents(WriteUserEventsRequest(events=batch), timeout=10)
        flow.sent += len(batch)
        due += BATCH_EVERY_S
        await asyncio.sleep(max(0.0, due - loop.time()))


def _shifted(event: UserEvent, seconds: float) -> UserEvent:
    event.event_time.seconds += int(seconds)
    return event


def _stamped(event: UserEvent) -> UserEvent:
    event.event_time.GetCurrentTime()
    return event


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now


def quantiles(values: list[float]) -> dict[str, float]:
    """p50, p99 and n."""
    return {
        "p50": round(float(np.quantile(values, 0.5)), 1),
        "p99": round(float(np.quantile(values, 0.99)), 1),
        "n": len(values),
    }


def main() -> None:
    parser = base_parser(__doc__, quick="20 probes of each kind instead of 200", seed=7)
    arguments = parser.parse_args()
    probes_each, history = (20, HISTORY // 4) if arguments.quick else (200, HISTORY)
    measured, rate = asyncio.run(measure(probes_each, history, arguments.seed))
    found = {key: quantiles(values) for key, values in measured.items()}
    click, search = found["click_to_answer_ms"], found["product_to_search_ms"]
    similar, vector = found["product_to_similar_ms"], found["event_to_served_vector_ms"]
    Result(
        benchmark="freshness",
        settings={"events_per_s": EVENTS_PER_S, "history": history, "probes_each": probes_each},
        seeds=[arguments.seed],
        rows=[{"data": SIMULATED_SHOP, "method": "headrace", "flowing_events_per_s": round(rate, 1), **found}],
        bars=[
            Bar.at_least("events per second beside the probes", 0.95 * EVENTS_PER_S, round(rate, 1)),
            Bar.at_most("click → changed Recommend, p99 ms", 200, click["p99"]),
            Bar.at_most("new product → Search, p99 ms", 1_000, search["p99"]),
            Bar.at_most("new product → Recommend similar, p99 ms", 1_000, similar["p99"]),
            Bar.at_most("event → learned vector served, p50 ms", 1_000, vector["p50"]),
            Bar.at_most("event → learned vector served, p99 ms", 2_400, vector["p99"]),
        ],
    ).write(arguments.json)


if __name__ == "__main__":
    main()
