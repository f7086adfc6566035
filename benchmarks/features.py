"""How fast are one person's state and 200 items' 20 features read, counted and joined, beside Feast and Redis?

`python -m benchmarks.features [--quick] [--seed N] --json PATH`. The same values everywhere, in turns within a run:

- read: one person's windowed counts and last events, and 20 features of 200 items, until they are numbers in hand.
  `headrace` is the feature store as a process of its own, one `GetOnlineFeatures`; `floor` is a server that gathers
  the rows from one NumPy table and answers with the same message; `redis` is one pipeline of MGET for packed rows of
  items and GET for the person's; `feast-redis` and `feast-sqlite` are `get_online_features(...).to_dict()`, once for
  the items and once for the person. `headrace while folding` is asked while the log grows by 500 events a second.
- count: events into windows of 5 minutes, 1 hour, 1 day and 7 days, an entity an event: `WindowedCounts` one by one
  and in batches, and Redis by four pipelined HINCRBY an event (which expires nothing).
- join: labels with the newest of the rows at or before each: `headrace features join`'s function from Parquet files,
  and Feast's file store, `get_historical_features(...).to_df()`.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import uvloop
from rich.console import Console

from benchmarks.arguments import base_parser
from benchmarks.features_count import BATCH, time_counts
from benchmarks.features_join import Joined, time_joins
from benchmarks.features_read import ITEMS, Floats, readers, time_reads, time_reads_while_folding
from benchmarks.features_scale import FEATURES, FULL, QUICK, Scale
from benchmarks.results import Bar, Result

Row = dict[str, object]


def quantiles_ms(values: Floats) -> Row:
    p50, p99 = np.quantile(values, (0.5, 0.99))
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4), "reads": len(values)}


def rows_of(reads: dict[str, Floats], counts: dict[str, list[float]], joins: dict[str, Joined]) -> Iterator[Row]:
    for name, values in reads.items():
        yield {"data": "read", "method": name, **quantiles_ms(values)}
    for name, rates in counts.items():
        yield {
            "data": "count",
            "method": name,
            "events_per_s": round(float(np.median(rates))),
            "lowest": round(min(rates)),
            "highest": round(max(rates)),
        }
    for name, joined in joins.items():
        seconds = [round(one, 3) for one in joined.seconds]
        yield {
            "data": "join",
            "method": name,
            "median_s": float(np.median(seconds)),
            "seconds": seconds,
            "rows": joined.rows,
            "without_features": joined.empty,
        }


def bars_of(
    reads: dict[str, Floats], counts: dict[str, list[float]], joins: dict[str, Joined], labels: int
) -> list[Bar]:
    p50 = {name: float(np.median(values)) for name, values in reads.items()}
    p99 = float(np.quantile(reads["headrace"], 0.99))
    seconds = {name: float(np.median(joined.seconds)) for name, joined in joins.items()}
    return [
        Bar.at_least("read: Feast-Redis ÷ headrace, p50", 20, round(p50["feast-redis"] / p50["headrace"], 1)),
        Bar.at_most("read: headrace, p99 ms", 3, round(p99, 3)),
        Bar.at_most("read: headrace ÷ floor, p50", 1.5, round(p50["headrace"] / p50["floor"], 2)),
        Bar.at_least("count: events/s a core, in batches", 500_000, round(float(np.median(counts["in batches"])))),
        Bar.at_least("join: Feast ÷ headrace, s", 10, round(seconds["feast"] / seconds["headrace"], 1)),
        Bar.at_most("join: labels dropped", 0, labels - joins["headrace"].rows),
    ]


async def measure(scale: Scale, seed: int) -> tuple[dict[str, Floats], dict[str, list[float]], dict[str, Joined]]:
    chance = np.random.default_rng(seed)
    asks = [
        (int(chance.integers(scale.users)), chance.choice(scale.products, ITEMS, replace=False).astype(np.uint32))
        for _ in range(scale.reads)
    ]
    with tempfile.TemporaryDirectory(prefix="headrace-features-") as name:
        folder = Path(name)
        async with readers(folder, scale, seed) as arms:
            reads = await asyncio.to_thread(time_reads, arms, asks, scale.rounds, scale.feast_reads)
            reads["headrace while folding"] = await time_reads_while_folding(folder, arms["headrace"], asks, scale)
        _say({name: quantiles_ms(values) for name, values in reads.items()})
        counts = time_counts(scale, seed)
        _say(counts)
        joins = time_joins(folder, scale, seed)
    return reads, counts, joins


def _say(values: object) -> None:
    Console(stderr=True).print(values)


def main() -> None:
    arguments = base_parser(__doc__, quick="a tenth of everything, one round", seed=3).parse_args()
    scale = QUICK if arguments.quick else FULL
    warnings.filterwarnings("ignore")
    logging.getLogger("feast").setLevel(logging.ERROR)
    reads, counts, joins = uvloop.run(measure(scale, arguments.seed))
    Result(
        benchmark="features",
        settings={"scale": vars(scale), "items": ITEMS, "features": len(FEATURES), "batch": BATCH},
        seeds=[arguments.seed],
        rows=list(rows_of(reads, counts, joins)),
        bars=bars_of(reads, counts, joins, scale.join_labels),
    ).write(arguments.json)


if __name__ == "__main__":
    main()
