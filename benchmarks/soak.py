"""Does the suite stay as it is for a day: memory, files, lag, and every count?

24 hours of a simulated shop's time through real processes, after 8 days that fill every window, history and memory of
fixed size: `python -m benchmarks.soak [--quick] [--seed N] --json PATH`. The same people come all the time, so state
should not grow; what one new visitor costs is measured afterwards. At the end the feature store's state must equal a
fresh fold of the log, and its windows a recount of the log by brute force.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress

from benchmarks.arguments import base_parser
from benchmarks.results import Bar, Result
from benchmarks.soak_load import Days, Step, strangers
from benchmarks.soak_recount import Recount, recounted
from headrace.cli.client import Client
from headrace.cli.sending import Sender
from headrace.cli.suite import Suite
from headrace.datasets.simulated_shop import ShopSettings
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1.feature_store_pb2 import (
    GetFeatureStoreStatusRequest,
    GetFeatureStoreStatusResponse,
)
from headrace.v1.ingest_pb2 import DeleteProductRequest

SERVICES = ("ingest", "feature-store")
WARM_UP_DAYS, SOAK_HOURS = 8, 24
# memories of fixed size, small enough to be full when the warm-up is over; rows of one visit in five are work enough
ENVIRONMENT = {
    "HEADRACE_INGEST_CANCEL_WINDOW_RECORDS": "20000",
    "HEADRACE_FEATURE_STORE_HISTORY_EVENTS": "50",
    "HEADRACE_FEATURE_STORE_ROW_HISTORY_BYTES": str(64 << 20),
    "HEADRACE_FEATURE_STORE_ROW_CHUNK_BYTES": str(4 << 20),
    "HEADRACE_FEATURE_STORE_ROW_SAMPLE_RATE": "0.2",
    "HEADRACE_FEATURE_STORE_SNAPSHOT_EVERY_S": "10",
}
_TIMEOUT_S = 300.0
_POLL_S = 0.02
_VIEWS_OF_A_STRANGER = 5
_console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Scale:
    """How many people, how often they come, how many strangers come afterwards, how many events a second are sent."""

    people: int
    visits_a_day: float
    strangers: int
    events_per_s: int
    recounted_users: int
    step_hours: int

    def shop(self, seed: int) -> ShopSettings:
        days = WARM_UP_DAYS + SOAK_HOURS // 24
        return ShopSettings(seed=seed, users=self.people, visits_a_day=self.visits_a_day, days=days)


FULL = Scale(people=1_000, visits_a_day=6.7, strangers=20_000, events_per_s=4_000, recounted_users=500, step_hours=1)
QUICK = Scale(people=300, visits_a_day=3.3, strangers=5_000, events_per_s=4_000, recounted_users=50, step_hours=3)


@dataclass(frozen=True, slots=True)
class Sample:
    """The suite at an hour of the shop's time, when everything sent was folded."""

    hour: int
    events: int
    rss_mb: Mapping[str, float]
    descriptors: Mapping[str, int]
    threads: Mapping[str, int]
    lag_p99_ms: float
    log_bytes: int
    wal_bytes: int
    snapshot_bytes: int
    row_bytes: int


@dataclass(frozen=True)
class Soak:
    """All samples, what a stranger costs, and whether the counts are right."""

    samples: Sequence[Sample]
    bytes_a_stranger: float
    recount: Recount
    digest: str
    fresh_digest: str


async def soaked(scale: Scale, seed: int) -> Soak:
    with tempfile.TemporaryDirectory() as folder:
        data, fresh = Path(folder) / "suite", Path(folder) / "fresh"
        async with Suite(data, services=SERVICES, environment=ENVIRONMENT) as suite, suite.client() as client:
            run = _Run(suite, client, scale)
            samples = await run.days(Days(scale.shop(seed), scale.step_hours))
            bytes_a_stranger = await run.strangers()
            log = open_event_log(CommonSettings(data_dir=data))
            recount = await recounted(client, log, scale.recounted_users, seed)
            end, _ = await log.end()
            await log.close()
            digest = await _digest(client, end)
        fresh.mkdir()
        for path in data.glob("events.db*"):
            shutil.copy(path, fresh)
        async with (
            Suite(fresh, services=("feature-store",), environment=ENVIRONMENT) as suite,
            suite.client() as client,
        ):
            fresh_digest = await _digest(client, end)
    return Soak(samples, bytes_a_stranger, recount, digest, fresh_digest)


class _Run:
    """One suite under load."""

    def __init__(self, suite: Suite, client: Client, scale: Scale) -> None:
        self._suite, self._client, self._scale = suite, client, scale
        self._products: list[str] = []

    async def days(self, days: Days) -> list[Sample]:
        """Plays all steps, and looks at the suite after each."""
        samples: list[Sample] = []
        async with Sender(self._client.ingest) as sender:
            await sender.write_products(days.first_products)
            self._products = [product.id for product in days.first_products]
            with Progress(console=_console) as progress:
                bar = progress.add_task("hours of the shop", total=24 * WARM_UP_DAYS + SOAK_HOURS)
                for step in days.steps():
                    await self._play(sender, step)
                    samples.append(await self._sample(step.end_hour, sender))
                    progress.update(bar, completed=step.end_hour)
        return samples

    async def _play(self, sender: Sender, step: Step) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await sender.write_products(step.products)
        await self._client.ingest.DeleteProduct(DeleteProductRequest(product_id=step.deleted), timeout=_TIMEOUT_S)
        for start in range(0, len(step.events), 500):
            await sender.send(step.events[start : start + 500])
            due = begun + (start + 500) / self._scale.events_per_s
            await asyncio.sleep(max(0.0, due - loop.time()))
        await sender.flush()

    async def _sample(self, hour: int, sender: Sender) -> Sample:
        status = await _folded(self._client, sender.counts.newest_offset)
        processes = {service: psutil.Process(self._suite.pid(service)) for service in SERVICES}
        data = self._suite.data_dir
        return Sample(
            hour=hour,
            events=sender.counts.events,
            rss_mb={name: round(process.memory_info().rss / 1e6, 2) for name, process in processes.items()},
            descriptors={name: process.num_fds() for name, process in processes.items()},
            threads={name: process.num_threads() for name, process in processes.items()},
            lag_p99_ms=round(status.lag_p99_ms, 1),
            log_bytes=_size(data, "events.db"),
            wal_bytes=_size(data, "events.db-wal"),
            snapshot_bytes=_size_of_newest(data / "feature-store" / "snapshots"),
            row_bytes=_size(data / "feature-store" / "rows", "rows-*"),
        )

    async def strangers(self) -> float:
        """Bytes that the processes grow by a visitor never seen before."""
        before = self._rss()
        async with Sender(self._client.ingest) as sender:
            events = list(strangers(self._scale.strangers, self._products, _VIEWS_OF_A_STRANGER))
            for start in range(0, len(events), 500):
                await sender.send(events[start : start + 500])
            await sender.flush()
            await _folded(self._client, sender.counts.newest_offset)
        return (self._rss() - before) / self._scale.strangers

    def _rss(self) -> float:
        return float(sum(psutil.Process(self._suite.pid(service)).memory_info().rss for service in SERVICES))


async def _folded(client: Client, offset: int) -> GetFeatureStoreStatusResponse:
    """The feature store's status once it holds the log up to `offset`."""
    while True:
        status = await client.feature_store.GetFeatureStoreStatus(GetFeatureStoreStatusRequest(), timeout=_TIMEOUT_S)
        if status.offset >= offset:
            return status
        await asyncio.sleep(_POLL_S)


async def _digest(client: Client, offset: int) -> str:
    await _folded(client, offset)
    request = GetFeatureStoreStatusRequest(with_digest=True)
    return str((await client.feature_store.GetFeatureStoreStatus(request, timeout=_TIMEOUT_S)).state_digest)


def _size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def _size_of_newest(snapshots: Path) -> int:
    """0 before the first."""
    # its name is an offset of fixed width
    newest = max(snapshots.glob("state-*"), default=None)
    return newest.stat().st_size if newest else 0


def bars(soak: Soak) -> list[Bar]:
    """The last day of the warm-up beside the day of the soak."""
    end = 24 * WARM_UP_DAYS
    before = [sample for sample in soak.samples if end - SOAK_HOURS < sample.hour <= end]
    after = [sample for sample in soak.samples if sample.hour > end]
    days = before, after
    found = []
    for service in SERVICES:
        found += [
            Bar.at_most(
                f"{service}: memory grown, %",
                5,
                _growth(*([s.rss_mb[service] for s in part] for part in (before, after))),
            ),
            Bar.at_most(f"{service}: open files more", 2, _more(before, after, "descriptors", service)),
            Bar.at_most(f"{service}: threads more", 2, _more(before, after, "threads", service)),
        ]
    lags = [[sample.lag_p99_ms for sample in part] for part in days]
    return [
        *found,
        Bar.at_most("lag p99, median of the day, ms", 1_000, statistics.median(lags[1])),
        Bar.at_most("lag p99, this day's median beside the day's before", 1.5, _ratio(*lags)),
        Bar.at_most("write-ahead log of the event log, at most MB", 64, max(s.wal_bytes for s in after) / 1e6),
        Bar.at_most("snapshots grown, %", 5, _growth(*([s.snapshot_bytes for s in part] for part in days))),
        Bar.at_most("training rows on disk, at most MB", 96, max(s.row_bytes for s in after) / 1e6),
        Bar.at_most("windowed counts that the log does not bear out", 0, len(soak.recount.wrong)),
        Bar.at_least("state equals a fresh fold of the log", 1, float(soak.digest == soak.fresh_digest)),
    ]


def _growth(before: Sequence[float], after: Sequence[float]) -> float:
    """Percent from the last quarter of a day to the last quarter of the next, by medians."""
    ends = [statistics.median(part[-len(part) // 4 :]) for part in (before, after)]
    return round(100 * (ends[1] / ends[0] - 1), 2)


def _more(before: Sequence[Sample], after: Sequence[Sample], field: str, service: str) -> int:
    highest = [max(getattr(sample, field)[service] for sample in part) for part in (before, after)]
    return int(highest[1] - highest[0])


def _ratio(before: Sequence[float], after: Sequence[float]) -> float:
    return round(statistics.median(after) / statistics.median(before), 3)


def main() -> None:
    parser = base_parser(__doc__, quick="a third of the people, half as often", seed=7)
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    soak = asyncio.run(soaked(scale, arguments.seed))
    for line in soak.recount.wrong[:10]:
        _console.print(line)
    Result(
        benchmark="soak",
        settings={**asdict(scale), "warm_up_days": WARM_UP_DAYS, "soak_hours": SOAK_HOURS, **ENVIRONMENT},
        seeds=[arguments.seed],
        rows=[
            {
                "data": "the simulated shop, its people constant",
                "method": "headrace",
                "events": soak.samples[-1].events,
                "bytes_a_stranger": round(soak.bytes_a_stranger),
                "views_of_a_stranger": _VIEWS_OF_A_STRANGER,
                "counts_compared": soak.recount.compared,
                "log_bytes_an_event": round(soak.samples[-1].log_bytes / soak.samples[-1].events, 1),
                "state_digest": soak.digest,
            },
            *(asdict(sample) for sample in soak.samples if sample.hour > 24 * WARM_UP_DAYS - SOAK_HOURS),
        ],
        bars=bars(soak),
    ).write(arguments.json)


if __name__ == "__main__":
    main()
