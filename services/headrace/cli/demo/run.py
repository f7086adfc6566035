"""The course of a demo: start five services, stream a shop's past, then its present, try a bad release, then click."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.live import Live

from headrace.cli.asking import caught_up, learned, lists
from headrace.cli.client import Client
from headrace.cli.demo.gates import let_bad_release_try, undo
from headrace.cli.demo.panel import DemoPanel, click_table, gates_text
from headrace.cli.demo.record import Answer, Click, DemoRecord, Lag, Shown, WeekQuality
from headrace.cli.demo.report import write_report
from headrace.cli.demo.visitors import visitors
from headrace.cli.probes import Probes, ordinals_by_product
from headrace.cli.sending import Sender
from headrace.cli.suite import Suite
from headrace.datasets.feed import DueProducts
from headrace.datasets.prequential import Basket, Scores, Week, floor_lists, weeks
from headrace.datasets.source import SIMULATED_SHOP, Dataset, data_folder, find
from headrace.v1.common_pb2 import ProductDetail, UserEvent
from headrace.v1.feature_store_pb2 import GetFeatureStoreStatusRequest
from headrace.v1.index_pb2 import GetIndexStatsRequest
from headrace.v1.ingest_pb2 import WriteUserEventsRequest
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, RecommendRequest, RecommendResponse
from headrace.v1.trainer_pb2 import GetTrainingStatusRequest, ListRolloutsRequest, RolloutPhase

# a small shop's rhythm instead of a large one's: the demo is over in minutes
_ENVIRONMENT = {
    "HEADRACE_LOG_LEVEL": "INFO",
    "HEADRACE_TRAINER_PUBLISH_EVERY_S": "5",
    "HEADRACE_RANKER_REPORT_EVERY_S": "0.5",
    # while the past streams by nobody asks for lists, and a gate that waits for them would show nothing
    "HEADRACE_ROLLOUT_QUIET_S": "4",
    "HEADRACE_ROLLOUT_GATE_PAIRS": "20",
    "HEADRACE_ROLLOUT_ONE_KIND_S": "2",
    "HEADRACE_ROLLOUT_INCREMENT_SOAK_S": "1",
}
_CHUNK = 2_000
_WATCH_EVERY_S = 0.5
_CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DemoPlan:
    """How much of the shop is streamed, and how closely it is watched.

    Learning may be `weeks_behind` while a week's lists are asked for: 0 waits for all of it.
    """

    warm_up_weeks: int
    weeks_behind: int
    history_weeks: int | None
    baskets_a_week: int
    live_s: float
    live_events_per_s: int
    probes_each: int

    @classmethod
    def whole(cls) -> DemoPlan:
        """All of the data set, in about three minutes."""
        return cls(13, 1, None, 40, 15.0, 200, 20)

    @classmethod
    def quick(cls) -> DemoPlan:
        """The last weeks only, in less than one."""
        return cls(2, 0, 6, 30, 6.0, 200, 6)


async def run_demo(
    plan: DemoPlan, dataset: Dataset, data_dir: Path, report: Path, console: Console, *, stay: bool
) -> DemoRecord:
    """Runs it all in `data_dir` (which must be empty or absent), writes `report`, and gives what was found."""
    record = DemoRecord(dataset.name, dataset.is_simulated, dataset.licence)
    async with Suite(data_dir, environment=_ENVIRONMENT, restart=True) as suite, suite.client() as client:
        with Live(DemoPanel(record), console=console, refresh_per_second=4):
            async with _watching(client, record):
                people = await _Stream(plan, dataset, client, record).run()
                async with visitors(client, people) as visits:
                    record.phase = "a release gone bad tries to reach people"
                    record.stopped = await let_bad_release_try(client, data_dir.absolute(), visits)
                    record.phase = "a good one is taken back"
                    record.undone = await undo(client)
                record.phase = "click, and the list changes"
                record.click = await click(client, record.log_time)
            record.phase = "done"
        if not console.is_terminal:  # there the picture is drawn once, without an end of line
            console.print()
        console.print(gates_text(record.stopped, record.undone))
        console.print(click_table(record.click))
        write_report(record, report)
        console.print(f"report: {report}")
        if stay:
            console.print(f"the suite stays up: headrace --help; its data directory is {data_dir}. Ctrl-C stops it.")
            await asyncio.Event().wait()
    return record


def demo_dataset(data: Path | None) -> Dataset:
    """The real shop when its files are at hand, else the simulated one, which says so."""
    folder = data_folder(data)
    name = "online_retail" if folder is not None and (folder / "online_retail").is_dir() else SIMULATED_SHOP
    return find(name, data)


class _Stream:
    """Streams a shop week by week, asking for lists before each week is known."""

    def __init__(self, plan: DemoPlan, dataset: Dataset, client: Client, record: DemoRecord) -> None:
        self._plan, self._dataset, self._client, self._record = plan, dataset, client, record
        self._products = DueProducts(dataset)
        self._week_ends = [0] * plan.weeks_behind
        self._chance = random.Random(7)

    async def run(self) -> list[str]:
        """Streams all of it; the people (user ids) who came last."""
        record, start = self._record, self._start()
        record.phase = "streaming the past as fast as it goes"
        record.expected_events = sum(len(batch) for batch in self._dataset.events(start=start))
        first_judged = start + timedelta(weeks=self._warm_up_weeks(start))
        async with Sender(self._client.ingest) as sender:
            live: list[UserEvent] = []
            for week in weeks(self._dataset, start=start, first_week=first_judged):
                await sender.write_products(self._products.until(week.start + timedelta(weeks=1)))
                await self._ask(week, sender)
                await self._send(sender, live)
                live = list(chain.from_iterable(week.events))
            split = max(0, len(live) - round(self._plan.live_s * self._plan.live_events_per_s))
            await self._send(sender, live[:split])
            await sender.flush()
            self._count(sender)
            await self._go_live(sender, live[split:])
        return sorted({event.user_id for event in live if event.user_id})

    def _warm_up_weeks(self, start: datetime) -> int:
        """A quarter of the shop's past, two weeks at least, at most as planned."""
        weeks_there = (self._dataset.span.end - start).days // 7
        return max(2, min(self._plan.warm_up_weeks, weeks_there // 4))

    def _start(self) -> datetime:
        span = self._dataset.span
        if self._plan.history_weeks is None:
            return span.start
        monday = span.end - timedelta(days=span.end.weekday())
        first = monday - timedelta(weeks=self._plan.history_weeks)
        return first.replace(hour=0, minute=0, second=0, microsecond=0)

    async def _send(self, sender: Sender, events: Sequence[UserEvent]) -> None:
        for place in range(0, len(events), _CHUNK):
            chunk = events[place : place + _CHUNK]
            await sender.send(chunk)
            self._record.sent += len(chunk)
            self._record.log_time = _newest(chunk)
            self._count(sender)

    def _count(self, sender: Sender) -> None:
        record, counts = self._record, sender.counts
        record.accepted, record.duplicates = counts.accepted, counts.duplicates
        record.rejected_by_reason = dict(counts.rejected)
        record.products = counts.products
        record.note_rate()

    async def _ask(self, week: Week, sender: Sender) -> None:
        """Holds lists against a sample of the week's baskets. Everything before the week was sent, nothing of it."""
        await sender.flush()
        # at full speed a year would pass before the first lesson
        self._week_ends.append(sender.counts.newest_offset)
        await learned(self._client, self._week_ends[-1 - self._plan.weeks_behind])
        if not week.baskets:
            return
        size = min(self._plan.baskets_a_week, len(week.baskets))
        sample = self._chance.sample(list(week.baskets), size)
        users = sorted({basket.user_id for basket in sample})
        served = await lists(self._client, users, sender.counts.newest_offset)
        popular, personal = floor_lists(week)
        values = [_recall(sample, source) for source in (served, popular, personal)]
        self._record.weeks.append(WeekQuality(week.name, size, *values))

    async def _go_live(self, sender: Sender, events: Sequence[UserEvent]) -> None:
        """The present: a steady stream, with probes beside it that measure how fresh the answers are."""
        self._record.phase = "the present: 200 events a second, and probes beside them"
        await caught_up(self._client, sender.counts.newest_offset)
        pump = asyncio.create_task(self._pump(sender, events))
        try:
            await self._probe(events)
        finally:
            await pump

    async def _pump(self, sender: Sender, events: Sequence[UserEvent]) -> None:
        size, loop = max(1, self._plan.live_events_per_s // 20), asyncio.get_running_loop()
        due = loop.time()
        for place in range(0, len(events), size):
            await self._send(sender, events[place : place + size])
            due += size / self._plan.live_events_per_s
            await asyncio.sleep(max(0.0, due - loop.time()))
        await sender.flush()
        self._count(sender)

    async def _probe(self, events: Sequence[UserEvent]) -> None:
        probes = Probes(self._client, "demo")
        ordinals = await ordinals_by_product(self._client)
        known = sorted({d.product_id for event in events for d in event.product_details} & ordinals.keys())
        values: dict[str, list[float]] = {}
        for number in range(self._plan.probes_each):
            earlier, product_id = self._chance.sample(known, 2)
            now = Timestamp()
            now.FromDatetime(datetime.fromisoformat(self._record.log_time))
            learned = probes.event_to_served_vector_ms(number, earlier, product_id, ordinals[product_id], now)
            begun: dict[str, Awaitable[float]] = {
                "click → changed list": probes.click_to_answer_ms(number, product_id, now),
                "new product → search": probes.product_to_search_ms(number, "a fresh teapot"),
                "event → learned vector served": learned,
            }
            for name, probe in begun.items():
                values.setdefault(name, []).append(await _took_ms(probe, probes.patience_s))
                self._record.live[name] = _lag(values[name])


async def _took_ms(probe: Awaitable[float], patience_s: float) -> float:
    """What a probe took; one that saw nothing (its vector hardly moved, the machine is busy) took all its patience."""
    try:
        return await probe
    except TimeoutError:
        return patience_s * 1e3


async def click(client: Client, log_time: str) -> Click:
    """Asks for a new visitor's list, lets the visitor look at three alike products, and asks again."""
    visitor = "you"
    before, _ = await _answer(client, visitor, 0)
    theme = await _alike(client, visitor)
    begun = time.perf_counter()
    now = Timestamp()
    now.FromDatetime(datetime.fromisoformat(log_time))
    events = [
        UserEvent(
            event_type=kind,
            visitor_id=visitor,
            event_time=now,
            product_details=[ProductDetail(product_id=product.product_id)],
        )
        for kind, product in zip(("detail-page-view", "detail-page-view", "add-to-cart"), theme, strict=False)
    ]
    written = await client.ingest.WriteUserEvents(WriteUserEventsRequest(events=events), timeout=_CALL_TIMEOUT_S)
    after, _ = await _answer(client, visitor, written.results[-1].offset)
    took_ms = (time.perf_counter() - begun) * 1e3
    done = [f"{event.event_type} “{product.title}”" for event, product in zip(events, theme, strict=False)]
    return Click("a visitor never seen before", done, before, after, took_ms)


async def _alike(client: Client, visitor: str) -> Sequence[Shown]:
    """Three products that go together and are not what everybody is shown."""
    _, popular = await _answer(client, visitor, 0)
    seed = popular.results[-1].product_id
    request = RecommendRequest(
        serving_config="similar-items", visitor_id=visitor, product_ids=[seed], page_size=3, return_products=True
    )
    return _shown(await client.ranker.Recommend(request, timeout=_CALL_TIMEOUT_S))


async def _answer(client: Client, visitor: str, min_offset: int) -> tuple[Answer, RecommendResponse]:
    request = RecommendRequest(
        serving_config="home",
        visitor_id=visitor,
        page_size=10,
        explain=True,
        return_products=True,
        min_offset=min_offset,
    )
    begun = time.perf_counter()
    response = await client.ranker.Recommend(request, timeout=_CALL_TIMEOUT_S)
    total_ms = (time.perf_counter() - begun) * 1e3
    return Answer(_shown(response), response.info.release, dict(response.info.stage_ms), total_ms), response


def _shown(response: RecommendResponse) -> list[Shown]:
    return [
        Shown(
            result.product_id,
            result.product.title.strip() or result.product_id,
            [reason.replace("_", " ") for reason in result.reasons],
        )
        for result in response.results
    ]


@asynccontextmanager
async def _watching(client: Client, record: DemoRecord) -> AsyncIterator[None]:
    watch = asyncio.create_task(_watch(client, record))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _watch(client: Client, record: DemoRecord) -> None:
    while True:
        try:
            await _look(client, record)
        except grpc.aio.AioRpcError as error:
            # a service that is being started again is no reason to stop watching
            record.phase = f"{record.phase.split(' · ')[0]} · {error.code().name}"
        await asyncio.sleep(_WATCH_EVERY_S)


async def _look(client: Client, record: DemoRecord) -> None:
    folded, trained, stats, served, rollouts = await asyncio.gather(
        client.feature_store.GetFeatureStoreStatus(GetFeatureStoreStatusRequest(), timeout=5),
        client.trainer.GetTrainingStatus(GetTrainingStatusRequest(), timeout=5),
        client.index.GetIndexStats(GetIndexStatsRequest(), timeout=5),
        client.ranker.GetRankerStatus(GetRankerStatusRequest(), timeout=5),
        client.trainer.ListRollouts(ListRolloutsRequest(page_size=1_000, with_increments=True), timeout=5),
    )
    phases = Counter(rollout.phase for rollout in rollouts.rollouts)
    record.promoted = phases[RolloutPhase.ROLLOUT_PHASE_PROMOTED]
    record.rolled_back = phases[RolloutPhase.ROLLOUT_PHASE_ROLLED_BACK]
    record.lags = {
        "log → features": Lag(folded.lag_p50_ms, folded.lag_p99_ms),
        "log → learned": Lag(trained.learn_lag_p50_ms, trained.learn_lag_p99_ms),
        "log → vector applied": Lag(trained.push_lag_p50_ms, trained.push_lag_p99_ms),
        "index apply": Lag(stats.apply_p50_ms, stats.apply_p99_ms),
    }
    record.behind = {
        "log → features": max(0, trained.log_end_offset - folded.offset),
        "log → learned": max(0, trained.log_end_offset - trained.offset),
        "log → vector applied": trained.delta_sequence - trained.acknowledged_sequence,
    }
    if served.release and served.release != record.release:
        record.releases += 1
        record.release = served.release
    record.delta_sequence, record.vectors = trained.delta_sequence, served.vectors


def _recall(baskets: Sequence[Basket], ranked: dict[str, list[str]]) -> float:
    scores = Scores()
    for basket in baskets:
        scores.add(basket, ranked.get(basket.user_id, ()))
    return scores.quality().recall


def _lag(values: list[float]) -> Lag:
    ordered = sorted(values)
    return Lag(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))])


def _newest(events: Sequence[UserEvent]) -> str:
    # not the last one's, nor the greatest: some data sets hold absurd times
    middle = sorted(event.event_time.seconds for event in events)[len(events) // 2]
    return datetime.fromtimestamp(middle, UTC).strftime("%Y-%m-%d %H:%M")
