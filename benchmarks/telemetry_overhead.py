"""What does it cost a ranker to be watched?

Two rankers answer the same people beside the same peers: one exports metrics, and one in a hundred traces, to a
receiver of OTLP in a process of its own; the other exports nothing. They are asked in turns, at the same even rate,
and the processor time of each answer is compared pair by pair, so that whatever else the machine does meets both.

`python -m benchmarks.telemetry_overhead [--quick] [--seed N] --json PATH`
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.arguments import base_parser
from benchmarks.fleet import Fleet, fleet
from benchmarks.postgres_server import postgres_server
from benchmarks.results import Bar, Result
from headrace.client import Deadlines, Shop, connect
from headrace.runtime.channels import open_channel
from headrace.v1.common_pb2 import Product, ProductDetail, UserEvent
from headrace.v1.ranker_pb2 import GetRankerStatusRequest, GetRankerStatusResponse, RecommendRequest
from headrace.v1.ranker_pb2_grpc import RankerServiceStub

RATE, WINDOW_S, PAIRS, QUICK_PAIRS = 60.0, 5.0, 12, 2
TRACE_RATIO, LIMIT = 0.01, 0.05
PRODUCTS, PEOPLE, EVENTS_EACH = 5_000, 200, 20
COUNTS = {"ingest": 1, "feature-store": 1, "index": 1, "trainer": 1, "ranker": 2}
WATCHED, BARE = 0, 1
_WAIT_S = 120.0

_RECEIVER = """
import sys
from concurrent import futures
import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as mp, metrics_service_pb2_grpc as mg
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as tp, trace_service_pb2_grpc as tg

class Traces(tg.TraceServiceServicer):
    def Export(self, request, context):
        print("spans", sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans), flush=True)
        return tp.ExportTraceServiceResponse()

class Metrics(mg.MetricsServiceServicer):
    def Export(self, request, context):
        print("metrics", sum(len(s.metrics) for r in request.resource_metrics for s in r.scope_metrics), flush=True)
        return mp.ExportMetricsServiceResponse()

server = grpc.server(futures.ThreadPoolExecutor(2))
tg.add_TraceServiceServicer_to_server(Traces(), server)
mg.add_MetricsServiceServicer_to_server(Metrics(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
"""


@dataclass(frozen=True)
class Pair:
    """Milliseconds of processor time an answer, of both rankers one after the other."""

    watched_ms: float
    bare_ms: float

    @property
    def overhead(self) -> float:
        return self.watched_ms / self.bare_ms - 1


@contextmanager
def receiver(output: Path) -> Iterator[str]:
    """The endpoint of a receiver of OTLP; what it received is told in `output`."""
    with (
        output.open("w") as told,
        subprocess.Popen([sys.executable, "-c", _RECEIVER], stdin=subprocess.PIPE, stdout=told, text=True) as process,
    ):
        try:
            while not (lines := output.read_text().splitlines()):
                time.sleep(0.05)
            yield f"http://127.0.0.1:{lines[0]}"
        finally:
            process.terminate()


async def asked(shop: Shop, pid: int, chance: random.Random) -> float:
    """Milliseconds of processor time that the process used for each of a window's answers."""
    process, begun, answers = psutil.Process(pid), time.perf_counter(), int(RATE * WINDOW_S)
    before = process.cpu_times()
    async with asyncio.TaskGroup() as group:
        for number in range(answers):
            request = RecommendRequest(serving_config="home", visitor_id=f"v{chance.randrange(PEOPLE)}")
            group.create_task(shop.recommend(request))
            await asyncio.sleep(max(0.0, begun + (number + 1) / RATE - time.perf_counter()))
    after = process.cpu_times()
    return 1e3 * (after.user + after.system - before.user - before.system) / answers


async def pairs(suite: Fleet, count: int, seed: int) -> list[Pair]:
    """Both rankers in turns; which comes first changes."""
    rankers, found = suite.replicas["ranker"], []
    async with AsyncExitStack() as stack:
        shops = [
            await stack.enter_async_context(connect(ranker=one.address, deadlines=Deadlines(answer_s=30)))
            for one in rankers
        ]
        for number in range(-1, count):
            order = (WATCHED, BARE) if number % 2 else (BARE, WATCHED)
            ms = {one: await asked(shops[one], rankers[one].process.pid, random.Random(seed + number)) for one in order}
            # the first pair warms both
            if number >= 0:
                found.append(Pair(ms[WATCHED], ms[BARE]))
                print(f"{number}: {found[-1].watched_ms:.3f} {found[-1].bare_ms:.3f}", flush=True)
    return found


async def filled(suite: Fleet) -> None:
    """Writes a shop and what people did in it, and waits until both rankers have a release."""
    async with connect(ingest=suite.addresses("ingest")) as shop:
        await shop.write_products([Product(id=f"p{number}", title=f"mug {number}") for number in range(PRODUCTS)])
        await shop.write_events([_view(person, step) for step in range(EVENTS_EACH) for person in range(PEOPLE)])
    async with asyncio.timeout(_WAIT_S):
        for replica in suite.replicas["ranker"]:
            await _has_release(replica.address)


async def _has_release(address: str) -> None:
    async with open_channel(address) as channel:
        stub, status = RankerServiceStub(channel), GetRankerStatusResponse()
        while not status.release:
            await asyncio.sleep(0.2)
            status = await stub.GetRankerStatus(GetRankerStatusRequest())


def _view(person: int, step: int) -> UserEvent:
    product = ProductDetail(product_id=f"p{(person * 7 + step * 13) % PRODUCTS}")
    event = UserEvent(event_type="detail-page-view", visitor_id=f"v{person}", product_details=[product])
    event.event_time.GetCurrentTime()
    return event


async def measured(is_quick: bool, seed: int) -> Result:
    """Everything, with bars."""
    with tempfile.TemporaryDirectory() as name, postgres_server() as server, receiver(Path(name) / "told") as endpoint:
        environment = {
            "HEADRACE_PRIVACY_KEY": "telemetry overhead benchmark",
            "HEADRACE_LOG_LEVEL": "WARNING",
            "HEADRACE_EVENT_LOG_URL": server.new_database(),
            "HEADRACE_INGEST_DATABASE_URL": server.new_database(),
            # what is shown would be learned, and the trainer would be busy beside
            "HEADRACE_RANKER_LOG_IMPRESSIONS": "false",
            # a machine that is busy with something else makes calls wait, and they are to be counted all the same
            "HEADRACE_RANKER_MAX_WAITING": "10000",
        }
        watched = {"HEADRACE_OTLP_ENDPOINT": endpoint, "HEADRACE_TRACE_RATIO": str(TRACE_RATIO)}
        async with fleet(Path(name), COUNTS, environment, {("ranker", WATCHED): watched}) as suite:
            await filled(suite)
            found = await pairs(suite, QUICK_PAIRS if is_quick else PAIRS, seed)
        told = (Path(name) / "told").read_text().split()
    return _result(found, {kind: _received(told, kind) for kind in ("spans", "metrics")}, seed)


def _received(told: list[str], kind: str) -> int:
    return sum(int(count) for what, count in zip(told[1:-1:2], told[2::2], strict=True) if what == kind)


def _result(found: list[Pair], received: Mapping[str, int], seed: int) -> Result:
    overheads = np.array([pair.overhead for pair in found])
    chance = np.random.default_rng(seed)
    means = chance.choice(overheads, (10_000, len(overheads))).mean(axis=1)
    row = {
        "watched_ms": round(float(np.median([pair.watched_ms for pair in found])), 3),
        "bare_ms": round(float(np.median([pair.bare_ms for pair in found])), 3),
        "overhead": round(float(overheads.mean()), 4),
        "overhead_90": [round(float(level), 4) for level in np.quantile(means, (0.05, 0.95))],
        "pairs": [[round(pair.watched_ms, 3), round(pair.bare_ms, 3)] for pair in found],
        "received": dict(received),
    }
    bars = [
        Bar.at_most("processor time more an answer, share", LIMIT, float(overheads.mean())),
        Bar.at_least("spans received", 1, received["spans"]),
        Bar.at_least("metrics received", 1, received["metrics"]),
    ]
    settings = {"answers_per_s": RATE, "window_s": WINDOW_S, "trace_ratio": TRACE_RATIO, "products": PRODUCTS}
    return Result("telemetry_overhead", settings, [seed], [row], bars)


def main() -> None:
    arguments = base_parser(__doc__, f"{QUICK_PAIRS} pairs").parse_args()
    asyncio.run(measured(arguments.quick, arguments.seed)).write(arguments.json)


if __name__ == "__main__":
    main()
