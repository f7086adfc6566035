"""What does the door refuse and mark, of what was planted and of what is good?

`python -m benchmarks.cleaning [--quick] [--seed N] --json PATH`. Everything goes through the gRPC door of an ingest
process of its own, into a SQLite log:

- the simulated shop with planted bots, double clicks and absurd values (`PlantedShop`), over five seeds;
- UCI Online Retail, every row, where HEADRACE_DATA is: its counts by rule, and what was called an outlier.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from rich.console import Console

from benchmarks.arguments import base_parser
from benchmarks.results import Bar, Result
from headrace.cli.suite import Suite
from headrace.datasets.feed import feed
from headrace.datasets.planted_shop import CRAWLERS, PlantedShop
from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop
from headrace.datasets.source import Dataset, data_folder, find
from headrace.runtime.channels import open_channel
from headrace.v1.common_pb2 import UserEvent
from headrace.v1.ingest_pb2 import (
    GetIngestStatusRequest,
    GetIngestStatusResponse,
    WriteProductsRequest,
    WriteResult,
    WriteUserEventsRequest,
)
from headrace.v1.ingest_pb2_grpc import IngestServiceStub

FOUND, LOST = 0.99, 0.001
# of the README that comes with the data
RETAIL = {
    "rows": 541_909,
    "cancellations": 9_288,
    "stock adjustments": 1_336,
    "bad debts": 3,
    "without a customer": 135_080,
    "exact repeats": 5_270,
}
_SHOWN_OUTLIERS = 40


@dataclass(frozen=True)
class Refused:
    """An event that was not taken."""

    event: UserEvent
    rule: str
    told: str


@dataclass
class Sent:
    """What became of a data set's events: refusals by event id, how often an id was called a duplicate, visitors."""

    refused: dict[str, Refused] = field(default_factory=dict)
    repeated: Counter[str] = field(default_factory=Counter)
    # sent again after it was refused
    refused_again: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    visitors: dict[str, str] = field(default_factory=dict)
    status: GetIngestStatusResponse = field(default_factory=GetIngestStatusResponse)

    def rule(self, name: str) -> str:
        return self.refused[name].rule if name in self.refused else ""


async def send(stub: IngestServiceStub, dataset: Dataset) -> Sent:
    """Every product and event of a data set through a door."""
    sent = Sent()
    for chunk in feed(dataset):
        for start in range(0, len(chunk.products), 2_000):
            await stub.WriteProducts(WriteProductsRequest(products=chunk.products[start : start + 2_000]))
        answer = await stub.WriteUserEvents(WriteUserEventsRequest(events=chunk.events))
        for event, result in zip(chunk.events, answer.results, strict=True):
            _note(sent, event, result)
    sent.status = await stub.GetIngestStatus(GetIngestStatusRequest())
    return sent


def _note(sent: Sent, event: UserEvent, result: WriteResult) -> None:
    sent.visitors[result.id] = event.visitor_id
    if result.outcome == WriteResult.OUTCOME_REJECTED:
        sent.refused_again += result.id in sent.refused
        told = "; ".join(f"{one.field} {one.description}" for one in result.violations)
        sent.refused[result.id] = Refused(event, result.reason, told)
    elif result.outcome == WriteResult.OUTCOME_DUPLICATE:
        sent.repeated[result.id] += 1
    else:
        sent.taken[event.event_type] += 1


@asynccontextmanager
async def door(**environment: str) -> AsyncIterator[IngestServiceStub]:
    """An ingest process over a fresh log."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        suite = await stack.enter_async_context(Suite(Path(folder), services=("ingest",), environment=environment))
        yield IngestServiceStub(await stack.enter_async_context(open_channel(suite.addresses["ingest"])))


SMALL = {"products": 300, "users": 300, "days": 8, "visits_a_day": 0.6}


def shop_of(seed: int, **size: float) -> PlantedShop:
    """A shop of its own for a seed."""
    return PlantedShop(SimulatedShop(ShopSettings(seed=seed, **size)), seed)  # type: ignore[arg-type]


def shares_of(shop: PlantedShop, sent: Sent) -> dict[str, float]:
    """The share of what was planted that was found, by kind; `good lost` and `bot events refused` beside them."""
    planted, truth = shop.planted, shop.truth
    bots = {name for name, one in sent.visitors.items() if one in planted.crawlers or one in truth.bot_visitors}
    refused_bots = {name for name in bots if sent.rule(name) in ("bot", "bot-pattern")}
    judged = {sent.visitors[name] for name in refused_bots}
    wanted = Counter(truth.duplicates)
    broken = [(name, rule) for rule, names in truth.faults.items() for name in names]
    shares = {
        "double clicks": _share(planted.repeats, sent, "repeat"),
        "absurd prices": _share(planted.prices, sent, "outlier"),
        "absurd quantities": _share(planted.quantities, sent, "outlier"),
        "broken events": sum(sent.rule(name) == rule for name, rule in broken) / len(broken),
        "exact repeats": sum(min(n, sent.repeated[name]) for name, n in wanted.items()) / wanted.total(),
        "fast bots": len(judged & set(truth.bot_visitors)) / max(1, len(truth.bot_visitors)),
    }
    for kind in CRAWLERS:
        visitors = {visitor for visitor, of in planted.crawlers.items() if of == kind}
        shares[f"bots: {kind}"] = len(judged & visitors) / len(visitors)
    bad = planted.repeats | planted.prices | planted.quantities | bots | {name for name, _ in broken}
    good = sent.visitors.keys() - bad
    lost = len(good & sent.refused.keys()) / len(good)
    return shares | {"bot events refused": len(refused_bots) / len(bots), "good lost": lost}


def _share(names: set[str], sent: Sent, rule: str) -> float:
    return sum(sent.rule(name) == rule for name in names) / len(names)


_ASIDE = ("bot events refused", "good lost")


def shop_rows(by_seed: Mapping[int, dict[str, float]]) -> Iterator[dict[str, object]]:
    for kind in next(iter(by_seed.values())):
        values = [shares[kind] for shares in by_seed.values()]
        share = "share" if kind in _ASIDE else "share found"
        told = {"lowest": min(values), "mean": statistics.mean(values), "highest": max(values)}
        yield {"data": "planted shop", "method": kind, "what": share, **{k: round(v, 5) for k, v in told.items()}}


def shop_bars(by_seed: Mapping[int, dict[str, float]]) -> list[Bar]:
    found = min(value for shares in by_seed.values() for kind, value in shares.items() if kind not in _ASIDE)
    lost = max(shares["good lost"] for shares in by_seed.values())
    return [
        Bar.at_least("planted shop: found, the worst kind and seed", FOUND, round(found, 4)),
        Bar.at_most("planted shop: good lost, the worst seed", LOST, round(lost, 6)),
    ]


def retail_rows(sent: Sent) -> Iterator[dict[str, object]]:
    data = "online_retail"
    status = sent.status
    yield {
        "data": data,
        "method": "all",
        "accepted": status.accepted,
        "duplicates": status.duplicates,
        "rejected": dict(status.rejected_by_reason),
    }
    for count in status.rule_counts:
        yield {"data": data, "method": f"rule {count.rule}", "events": count.events}
    odd = sorted((one for one in sent.refused.values() if one.rule == "outlier"), key=_score)
    # the oddest of each product
    by_product = {one.event.product_details[0].product_id: one for one in odd}
    for one in sorted(by_product.values(), key=_score, reverse=True)[:_SHOWN_OUTLIERS]:
        detail = one.event.product_details[0]
        yield {
            "data": data,
            "method": "an outlier",
            "product": detail.product_id,
            "quantity": detail.quantity,
            "price": detail.price,
            "told": one.told,
        }


def _score(one: Refused) -> float:
    return float(one.told.split("z-score of ")[1].split()[0])


def retail_counts(sent: Sent, dataset: Dataset) -> dict[str, int]:
    """The counts of the data's README, as they show at the door."""
    status = sent.status
    marks: Counter[str] = Counter()
    for count in status.rule_counts:
        if count.rule in ("cancel-unmatched", "cancel-exceeds"):
            marks[count.rule] += count.events
    kinds: Counter[str] = Counter()
    for event in chain.from_iterable(dataset.events()):
        detail = event.product_details[0]
        kinds["rows"] += 1
        kinds["without a customer"] += not event.user_id
        kinds["cancellations"] += event.event_type == "purchase-cancel"
        kinds["stock adjustments"] += detail.quantity < 0
        kinds["bad debts"] += event.transaction_id.startswith("A")
    return {
        **kinds,
        "exact repeats": status.duplicates + sent.refused_again,
        "exact repeats, answered as duplicates": status.duplicates,
        "exact repeats, refused again": sent.refused_again,
        "cancellations, without their repeats": sent.taken["purchase-cancel"],
        "cancellations that found their purchase": sent.taken["purchase-cancel"] - marks.total(),
        "cancellations without a purchase": marks["cancel-unmatched"],
        "cancellations of more than was bought": marks["cancel-exceeds"],
    }


def retail_bars(counts: Mapping[str, int], outliers: int) -> list[Bar]:
    differ = sum(counts[name] != wanted for name, wanted in RETAIL.items())
    return [
        Bar.at_most("online_retail: counts that differ from the data's README", 0, differ),
        Bar.at_most("online_retail: refused as outliers", LOST, round(outliers / counts["rows"], 6)),
    ]


async def measure(seeds: Sequence[int], *, is_quick: bool) -> tuple[list[dict[str, object]], list[Bar]]:
    by_seed: dict[int, dict[str, float]] = {}
    for seed in seeds:
        shop = shop_of(seed, **SMALL) if is_quick else shop_of(seed, days=21)
        async with door() as stub:
            by_seed[seed] = shares_of(shop, await send(stub, shop))
        Console(stderr=True).print(seed, by_seed[seed])
    rows, bars = list(shop_rows(by_seed)), shop_bars(by_seed)
    if data_folder() is None:
        Console(stderr=True).print("online_retail is left out: HEADRACE_DATA names no folder")
        return rows, bars
    retail = find("online_retail")
    async with door(HEADRACE_INGEST_CANCEL_WINDOW_RECORDS="600000") as stub:
        sent = await send(stub, retail)
    counts = retail_counts(sent, retail)
    rows += [{"data": "online_retail", "method": name, "rows": number} for name, number in counts.items()]
    return rows + list(retail_rows(sent)), bars + retail_bars(counts, sent.status.rejected_by_reason["outlier"])


def main() -> None:
    arguments = base_parser(__doc__, quick="small shops, two seeds", seed=11).parse_args()
    seeds = range(arguments.seed, arguments.seed + (2 if arguments.quick else 5))
    rows, bars = asyncio.run(measure(seeds, is_quick=arguments.quick))
    Result(
        benchmark="cleaning",
        settings={"shop": SMALL if arguments.quick else {"days": 21}},
        seeds=list(seeds),
        rows=rows,
        bars=bars,
    ).write(arguments.json)


if __name__ == "__main__":
    main()
