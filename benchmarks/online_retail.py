"""How well do the running services predict a real shop's next baskets, beside counting?

The data set's protocol, through the services and not around them: every ISO week from 2011-03-07, everything
before the week is written through `ingest`, learned and served; each identified customer who buys in the week is
asked for by `Recommend` (home, 20 products); then the week is written.
`python -m benchmarks.online_retail [--quick] [--data FOLDER] [--seed N] --json PATH`.

- recall_at_20: mean over baskets of |list ∩ basket| / |basket|; cold_recall_at_20: customers with no history.
- The floors are computed beside it, on the same baskets: decayed popularity, and personal frequency + popularity.
- Weeks before 2011-07-01 are the tuning part; the held-out part is reported on its own.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.arguments import base_parser
from benchmarks.results import Bar, Result
from headrace.cli.asking import caught_up, learned, lists
from headrace.cli.sending import Sender
from headrace.cli.suite import Suite
from headrace.datasets.feed import DueProducts
from headrace.datasets.prequential import HELD_OUT_FROM, Scores, Week, floor_lists, weeks
from headrace.datasets.source import Dataset, find
from headrace.v1.trainer_pb2 import GetTrainingStatusRequest

FLOOR, COLD_FLOOR = 0.2336, 0.0777
# what learned ranking is to reach
GOAL, COLD_GOAL = 0.260, 0.110
METHODS = ("headrace", "popularity", "personal")


@dataclass
class Judgement:
    """Scores of every method over all weeks, and over the tuning and held-out parts."""

    scores: dict[tuple[str, str], Scores] = field(default_factory=dict)

    def add(self, week: Week, served: Mapping[str, list[str]]) -> None:
        part = "held out" if week.start >= HELD_OUT_FROM else "tuning"
        for method, ranked in zip(METHODS, (served, *floor_lists(week)), strict=True):
            for name in ("all", part):
                self.scores.setdefault((method, name), Scores()).add_week(week, ranked)

    def rows(self) -> Iterator[dict[str, object]]:
        for (method, part), scores in self.scores.items():
            everyone, known, cold = (scores.quality(name) for name in ("all", "known", "cold"))
            yield {
                "data": "online_retail",
                "method": method,
                "weeks": part,
                "baskets": everyone.baskets,
                "cold_baskets": cold.baskets,
                "recall_at_20": round(everyone.recall, 4),
                "ndcg_at_20": round(everyone.ndcg, 4),
                "hit_at_20": round(everyone.hit, 4),
                "known_recall_at_20": round(known.recall, 4),
                "cold_recall_at_20": round(cold.recall, 4),
                "cold_ndcg_at_20": round(cold.ndcg, 4),
            }


async def judged(dataset: Dataset, limit: int | None, seed: int) -> tuple[Judgement, dict[str, float]]:
    """Streams the shop through a suite of its own and asks before every week."""
    judgement, begun = Judgement(), time.monotonic()
    environment = {"HEADRACE_TRAINER_PUBLISH_EVERY_S": "5", "HEADRACE_TRAINER_SEED": str(seed)}
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("weeks", total=limit or 54)
        async with Suite(Path(folder), environment=environment) as suite, suite.client() as client:
            products = DueProducts(dataset)
            async with Sender(client.ingest) as sender:
                judged_weeks = 0
                for week in weeks(dataset):
                    await sender.write_products(products.until(week.start + timedelta(weeks=1)))
                    if week.is_judged:
                        await sender.flush()
                        await caught_up(client, sender.counts.newest_offset)
                        await learned(client, sender.counts.newest_offset)
                        judgement.add(week, await lists(client, week.users(), sender.counts.newest_offset))
                        judged_weeks += 1
                    progress.update(task, advance=1, description=_so_far(week, judgement))
                    if judged_weeks == limit:
                        break
                    for batch in week.events:
                        await sender.send(batch)
            trained = await client.trainer.GetTrainingStatus(GetTrainingStatusRequest())
    return judgement, {
        "wall_seconds": round(time.monotonic() - begun, 1),
        "train_seconds": round(trained.train_seconds, 1),
        "examples": trained.examples,
    }


def _so_far(week: Week, judgement: Judgement) -> str:
    if not week.is_judged:
        return f"{week.name} (warm-up)"
    recalls = (judgement.scores[method, "all"].quality().recall for method in METHODS)
    return f"{week.name} " + " ".join(f"{m} {r:.4f}" for m, r in zip(METHODS, recalls, strict=True))


def bars_of(recall: float, cold_recall: float) -> list[Bar]:
    measured = (("all weeks", recall, FLOOR, GOAL), ("customers with no history", cold_recall, COLD_FLOOR, COLD_GOAL))
    return [
        Bar.at_least(f"Recall@20, {who}: {what}", limit, round(value, 4))
        for who, value, floor, goal in measured
        for what, limit in (("the floor", floor), ("the goal", goal))
    ]


def main() -> None:
    parser = base_parser(__doc__, quick="the first 3 weeks only")
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: HEADRACE_DATA)")
    arguments = parser.parse_args()
    dataset = find("online_retail", arguments.data)
    judgement, cost = asyncio.run(judged(dataset, 3 if arguments.quick else None, arguments.seed))
    whole = judgement.scores["headrace", "all"]
    bars = bars_of(whole.quality().recall, whole.quality("cold").recall)
    rows = [row | (cost if row["method"] == "headrace" else {}) for row in judgement.rows()]
    settings = {"floors": {"recall_at_20": FLOOR, "cold_recall_at_20": COLD_FLOOR}, "quick": arguments.quick}
    Result("online_retail", settings, [arguments.seed], rows, bars).write(arguments.json)


if __name__ == "__main__":
    main()
