"""Is a storefront's call lost while every process of a suite is replaced?

Two ingests, feature stores, indexes and rankers and one trainer run over a PostgreSQL. A storefront writes events,
asks for products and searches through `headrace.client`, at its own pace, while every process is stopped by SIGTERM
and started again, one after the other. A call is lost when the client raises an error; an event is lost when it was
acknowledged and is not in the log. Answers that were made without some stage are counted beside.

`python -m benchmarks.rolling_restart [--quick] [--seed N] --json PATH`
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.arguments import base_parser
from benchmarks.fleet import fleet
from benchmarks.open_loop import quantiles
from benchmarks.postgres_server import postgres_server
from benchmarks.results import Bar, Result
from headrace.client import Deadlines, Shop, connect
from headrace.runtime.errors import HeadraceError
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent
from headrace.v1.ingest_pb2 import WriteResult
from headrace.v1.ranker_pb2 import AnswerInfo, RecommendRequest, SearchRequest

COUNTS = {"ingest": 2, "feature-store": 2, "index": 2, "trainer": 1, "ranker": 2}
# these need no other service; the door is one process that is replaced in place
QUICK_COUNTS = {"ingest": 1, "ranker": 2}
RATE, CALLS, QUICK_CALLS = 40.0, 1_500, 100
# processes that start take the processors from those that answer, the more so where there are two
ANSWER_S = 5.0
# nobody looks at a product twice: the door would take that for a double click
PRODUCTS, PEOPLE = 200, 53
_WORDS = ("red", "blue", "small", "large")


@dataclass
class Calls:
    """What became of the storefront's calls, by what was asked."""

    ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: list[str] = field(default_factory=list)
    degraded_answers: int = 0
    degraded_reasons: Counter[str] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)

    @property
    def made(self) -> int:
        return sum(map(len, self.ms.values())) + len(self.lost)


class Storefront:
    """Calls at an even pace, whatever becomes of those before, until it is stopped."""

    def __init__(self, shop: Shop, calls: Calls, seed: int, services: Collection[str]) -> None:
        self._shop = shop
        self._calls = calls
        self._random = random.Random(seed)
        self._kinds = {"events": self._write}
        if "ranker" in services:
            self._kinds |= {"recommend": self._recommend, "search": self._search}

    async def run(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set and every call has ended."""
        async with asyncio.TaskGroup() as group:
            number, begun = 0, time.perf_counter()
            while not stop.is_set():
                kind = tuple(self._kinds)[number % len(self._kinds)]
                group.create_task(self._call(kind, number))
                number += 1
                await asyncio.sleep(max(0.0, begun + number / RATE - time.perf_counter()))

    async def _call(self, kind: str, number: int) -> None:
        begun = time.perf_counter()
        try:
            await self._kinds[kind](number)
        except HeadraceError as error:
            self._calls.lost.append(f"{kind}: {error!r}")
        else:
            self._calls.ms[kind].append((time.perf_counter() - begun) * 1e3)

    async def _write(self, number: int) -> None:
        event = UserEvent(
            event_id=f"call-{number}",
            event_type="detail-page-view",
            visitor_id=f"v{number % PEOPLE}",
            product_details=[ProductDetail(product_id=f"p{number % PRODUCTS}")],
        )
        event.event_time.GetCurrentTime()
        for result in await self._shop.write_events([event]):
            if result.outcome not in (WriteResult.OUTCOME_ACCEPTED, WriteResult.OUTCOME_DUPLICATE):
                raise HeadraceError(f"refused: {result.reason}")
            self._calls.acknowledged.append(result.id)

    async def _recommend(self, number: int) -> None:
        answer = await self._shop.recommend(RecommendRequest(serving_config="home", visitor_id=self._visitor()))
        self._note(answer.info)

    async def _search(self, number: int) -> None:
        request = SearchRequest(query=f"{self._random.choice(_WORDS)} mug", visitor_id=self._visitor())
        self._note((await self._shop.search(request)).info)

    def _note(self, info: AnswerInfo) -> None:
        self._calls.degraded_answers += bool(info.degraded_reasons)
        self._calls.degraded_reasons.update(info.degraded_reasons)

    def _visitor(self) -> str:
        return f"v{self._random.randrange(PEOPLE)}"


@dataclass
class Replacement:
    """What a storefront saw while every process was replaced, and how those ended."""

    calls: Calls
    statuses: dict[str, list[int]]


async def replaced(
    folder: Path, counts: Mapping[str, int], environment: Mapping[str, str], seed: int, calls: int
) -> Replacement:
    """Replaces every process of a suite under a storefront's calls, again until there were so many `calls`."""
    async with (
        fleet(folder, counts, environment) as suite,
        connect(
            ingest=suite.addresses("ingest"),
            ranker=suite.addresses("ranker") if "ranker" in counts else "",
            deadlines=Deadlines(answer_s=ANSWER_S),
        ) as shop,
    ):
        await shop.write_products(_products())
        found, stop = Replacement(Calls(), {}), asyncio.Event()
        storefront = asyncio.create_task(Storefront(shop, found.calls, seed, counts).run(stop))
        try:
            while found.calls.made < calls:
                for service in counts:
                    found.statuses[service] = found.statuses.get(service, []) + await suite.replace(service)
                    print(f"{service}: {found.calls.made} calls, {len(found.calls.lost)} lost", flush=True)
        finally:
            stop.set()
            await storefront
        return found


def _products() -> list[Product]:
    return [Product(id=f"p{number}", title=f"{_WORDS[number % 4]} mug {number}") for number in range(PRODUCTS)]


async def logged(common: CommonSettings) -> Counter[str]:
    """How often each event is in the log."""
    log, found, offset = open_event_log(common), Counter(), 0
    try:
        while records := await log.read(offset, limit=1_000):
            found.update(record.event_id for record in records)
            offset = records[-1].offset
    finally:
        await log.close()
    return found


async def measured(is_quick: bool, seed: int) -> Result:
    """Everything, with bars."""
    counts, calls = (QUICK_COUNTS, QUICK_CALLS) if is_quick else (COUNTS, CALLS)
    with tempfile.TemporaryDirectory() as name, nullcontext() if is_quick else postgres_server() as server:
        folder, log_url, catalogue_url = Path(name), "", ""
        if server is not None:
            log_url, catalogue_url = server.new_database(), server.new_database()
        environment = {
            "HEADRACE_PRIVACY_KEY": "rolling restart benchmark",
            "HEADRACE_LOG_LEVEL": "WARNING",
            "HEADRACE_EVENT_LOG_URL": log_url,
            "HEADRACE_INGEST_DATABASE_URL": catalogue_url,
            # what is asked is whether replacing loses calls, not whether a busy machine refuses some
            "HEADRACE_RANKER_MAX_WAITING": "1000",
            # of --quick, where there is neither a feature store nor a registry to wait for
            **({"HEADRACE_RANKER_READY_WAIT_S": "0"} if is_quick else {}),
        }
        if is_quick:
            # there are no peers to wait for
            environment["HEADRACE_RANKER_READY_WAIT_S"] = "0"
        found = await replaced(folder, counts, environment, seed, calls)
        in_log = await logged(CommonSettings(event_log_url=log_url, data_dir=folder / "ingest-0"))
    return Result(
        "rolling_restart",
        {"replicas": dict(counts), "calls_per_s": RATE, "answer_deadline_s": ANSWER_S},
        [seed],
        _rows(found),
        _bars(found, in_log, calls),
    )


def _rows(found: Replacement) -> list[dict[str, object]]:
    calls = found.calls
    rows: list[dict[str, object]] = [
        {"call": kind, "answered": len(ms), **quantiles(np.array(ms))} for kind, ms in calls.ms.items()
    ]
    reasons = {"degraded_answers": calls.degraded_answers, "degraded_reasons": dict(calls.degraded_reasons)}
    return [*rows, {"call": "all", "made": calls.made, "lost": calls.lost, **reasons, "exit_statuses": found.statuses}]


def _bars(found: Replacement, in_log: Counter[str], wanted: int) -> list[Bar]:
    calls, statuses = found.calls, [status for each in found.statuses.values() for status in each]
    missing = sum(in_log[event] != 1 for event in calls.acknowledged)
    return [
        Bar.at_least("calls while every process is replaced", wanted, calls.made),
        Bar.at_most("calls lost", 0, len(calls.lost)),
        Bar.at_most("acknowledged events that are not in the log once", 0, missing),
        Bar.at_most("processes that did not end with 0", 0, sum(status != 0 for status in statuses)),
    ]


def main() -> None:
    parser = base_parser(__doc__, "the full suite: one ingest and two rankers over the embedded log")
    arguments = parser.parse_args()
    asyncio.run(measured(arguments.quick, arguments.seed)).write(arguments.json)


if __name__ == "__main__":
    main()
