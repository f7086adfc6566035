"""How many events a second does the door make durable, beside what its engine alone does with the same batches?

`python -m benchmarks.ingest [--quick] [--seed N] --json PATH`. Events of 300 bytes with ids of their own and the
attribution token of an answer, over SQLite
and over PostgreSQL (synchronous commit, fsync on), all on one machine, in turns within each round:

- bare: one connection, one transaction a batch into one table with a unique id: `executemany`, or `COPY`.
- append: `EventLog.append` in this process, which also gives offsets, finds repeats and wakes followers.
- door: the ingest service as a process of its own, `WriteUserEvents`; for "stream" one `StreamUserEvents`.

`append` and `door` have the same number of calls in flight. `half load` offers batches of 100 at half the door's rate
whether or not it has answered the ones before, and times each from when it was due.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import numpy as np
import psycopg
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from benchmarks.arguments import base_parser
from benchmarks.open_loop import Floats, quantiles, sent
from benchmarks.postgres_server import PostgresServer, postgres_server
from benchmarks.results import Bar, Result
from headrace.cli.suite import Suite
from headrace.model.attribution import Tokens
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.privacy import open_privacy
from headrace.runtime.settings import CommonSettings
from headrace.runtime.sqlite import make_durable
from headrace.v1.common_pb2 import ProductDetail, UserEvent
from headrace.v1.ingest_pb2 import (
    StreamUserEventsRequest,
    StreamUserEventsResponse,
    WriteResult,
    WriteUserEventsRequest,
    WriteUserEventsResponse,
)

ENGINES = ("sqlite", "postgresql")
EVENT_BYTES = 300
PRODUCTS, VISITORS = 5_000, 50_000
# batch size → calls in flight
IN_FLIGHT = {1: 64, 100: 8, 1_000: 4}
STREAM = "stream"
GOALS_AT_100 = {"sqlite": 12_000, "postgresql": 7_000}

_TYPES = ("detail-page-view", "detail-page-view", "add-to-cart", "purchase-complete")
# the door knows the tokens of its own suite
_KEY = "ingest benchmark's own key"
_ANSWERED_US = 10_000_000
_WRITE = "/headrace.v1.IngestService/WriteUserEvents"
_STREAM = "/headrace.v1.IngestService/StreamUserEvents"
_BARE_TABLE = "(id {text} PRIMARY KEY, key {text}, kind {text}, time_us BIGINT, payload {blob})"


class Events:
    """Events of the shop, no two with one id, each of what an answer of its own showed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._made = 0
        self._tokens = Tokens(open_privacy(CommonSettings(privacy_key=_KEY)).derived("attribution tokens"))
        self._now = Timestamp()
        self._now.GetCurrentTime()

    def batches(self, count: int, size: int) -> list[list[UserEvent]]:
        return [[self._event() for _ in range(size)] for _ in range(count)]

    def of_every_product(self) -> list[UserEvent]:
        events = [self._event() for _ in range(PRODUCTS)]
        for number, event in enumerate(events):
            event.product_details[0].product_id = f"product-{number:06d}"
        return events

    def _event(self) -> UserEvent:
        self._made += 1
        visitor = f"visitor-{self._chance.randrange(VISITORS):08d}"
        event = UserEvent(
            event_id=f"{self._chance.getrandbits(96):024x}{self._made:08x}",
            event_type=self._chance.choice(_TYPES),
            visitor_id=visitor,
            event_time=self._now,
            product_details=[
                ProductDetail(product_id=f"product-{self._chance.randrange(PRODUCTS):06d}", quantity=1, price=9.5)
            ],
            session_id=f"{self._chance.getrandbits(64):016x}",
            attribution_token=self._tokens.new(
                release="r-000042", user_key="v:" + visitor, time_us=self._now.ToMicroseconds() - _ANSWERED_US
            ),
        )
        # two bytes of the field's own
        event.page_categories.append("c" * (EVENT_BYTES - event.ByteSize() - 2))
        return event


class Arm(Protocol):
    """One way of making events durable: prepares batches, and writes a prepared one."""

    name: str

    def prepare(self, batch: Sequence[UserEvent]) -> object: ...

    async def write(self, prepared: object) -> None: ...


class Bare:
    """The engine and nothing else."""

    name = "bare"

    def __init__(self, insert: Callable[[Sequence[tuple[object, ...]]], None]) -> None:
        self._insert = insert

    def prepare(self, batch: Sequence[UserEvent]) -> list[tuple[object, ...]]:
        return [
            (event.event_id, "v:" + event.visitor_id, "user-event", 1, event.SerializeToString()) for event in batch
        ]

    async def write(self, prepared: object) -> None:
        self._insert(prepared)  # type: ignore[arg-type]


class Append:
    """Our log in this process."""

    name = "append"

    def __init__(self, common: CommonSettings) -> None:
        self.log = open_event_log(common)

    def prepare(self, batch: Sequence[UserEvent]) -> list[Record]:
        return [
            Record("user-event", "v:" + event.visitor_id, event.event_id, 1, event.SerializeToString())
            for event in batch
        ]

    async def write(self, prepared: object) -> None:
        await self.log.append(prepared)  # type: ignore[arg-type]


class Door:
    """The service, asked with bytes that are made beforehand."""

    name = "door"

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.unary_unary(_WRITE)
        self._stream = channel.stream_stream(_STREAM)

    def prepare(self, batch: Sequence[UserEvent]) -> bytes:
        return WriteUserEventsRequest(events=batch).SerializeToString()

    async def write(self, prepared: object) -> None:
        answer = WriteUserEventsResponse.FromString(await self._call(prepared))
        _check_accepted(result for result in answer.results)

    async def stream(self, events: Sequence[UserEvent]) -> float:
        """Seconds until all of one stream's events are acknowledged."""
        requests = [
            StreamUserEventsRequest(sequence=number, event=event).SerializeToString()
            for number, event in enumerate(events)
        ]
        begun = time.perf_counter()
        answers = [answer async for answer in self._stream(iter(requests))]
        seconds = time.perf_counter() - begun
        _check_accepted(StreamUserEventsResponse.FromString(answer).result for answer in answers)
        assert len(answers) == len(events)
        return seconds


def _check_accepted(results: Iterator[WriteResult]) -> None:
    for result in results:
        if result.outcome != WriteResult.OUTCOME_ACCEPTED or result.token_fault:
            raise RuntimeError(f"an event was not accepted with its token: {result}")


@dataclass
class Engine:
    """One engine with its arms, open."""

    name: str
    arms: Sequence[Arm]
    door: Door


async def throughput(arm: Arm, batches: list[list[UserEvent]], in_flight: int) -> float:
    """Acknowledged events a second with so many calls in flight."""
    prepared = [arm.prepare(batch) for batch in batches]
    waiting = iter(prepared)

    async def caller() -> None:
        for batch in waiting:
            await arm.write(batch)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return sum(map(len, batches)) / (time.perf_counter() - begun)


async def acknowledge_ms(door: Door, batches: list[list[UserEvent]], events_per_s: float) -> Floats:
    """Milliseconds from when each batch was due until its answer, at a rate that waits for nothing."""
    prepared = [door.prepare(batch) for batch in batches]
    # the pauses are to be the door's, not those of the load
    gc.collect()
    gc.freeze()

    async def send(number: int) -> str:
        await door.write(prepared[number])
        return "ok"

    due_s = np.arange(len(batches)) * len(batches[0]) / events_per_s
    return (await sent(due_s, send)).of("ok")


@asynccontextmanager
async def opened(name: str, folder: Path, server: PostgresServer) -> AsyncIterator[Engine]:
    async with AsyncExitStack() as stack:
        urls = ["" if name == "sqlite" else server.new_database() for _ in range(2)]
        append = Append(CommonSettings(data_dir=folder / "append", event_log_url=urls[0]))
        stack.push_async_callback(append.log.close)
        environment = {"HEADRACE_EVENT_LOG_URL": urls[1], "HEADRACE_INGEST_DATABASE_URL": urls[1]}
        environment["HEADRACE_PRIVACY_KEY"] = _KEY
        suite = Suite(folder / "door", services=("ingest",), environment=environment)
        await stack.enter_async_context(suite)
        channel = await stack.enter_async_context(open_channel(suite.addresses["ingest"]))
        bare = _bare_sqlite(folder / "bare.db") if name == "sqlite" else _bare_postgres(server.new_database())
        door = Door(channel)
        yield Engine(name, (Bare(stack.enter_context(bare)), append, door), door)


@contextmanager
def _bare_sqlite(path: Path) -> Iterator[Callable[[Sequence[tuple[object, ...]]], None]]:
    db = sqlite3.connect(path, isolation_level=None)
    make_durable(db)
    db.execute(f"CREATE TABLE events {_BARE_TABLE.format(text='TEXT', blob='BLOB')}")

    def insert(rows: Sequence[tuple[object, ...]]) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
        db.execute("COMMIT")

    yield insert
    db.close()


@contextmanager
def _bare_postgres(url: str) -> Iterator[Callable[[Sequence[tuple[object, ...]]], None]]:
    with psycopg.connect(url) as db:
        db.execute(f"CREATE TABLE events {_BARE_TABLE.format(text='text', blob='bytea')}".encode())
        db.commit()

        def insert(rows: Sequence[tuple[object, ...]]) -> None:
            with db.cursor() as cursor, cursor.copy("COPY events FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(("text", "text", "text", "int8", "bytea"))
                for row in rows:
                    copy.write_row(row)
            db.commit()

        yield insert


# engine, batch and arm
Key = tuple[str, int | str, str]


async def measure(rounds: int, scale: float, seed: int) -> tuple[dict[Key, list[float]], dict[str, Floats]]:
    """Events a second of every arm by round, and the milliseconds at half load by engine."""
    events = Events(seed)
    counts = {1: int(6_000 * scale), 100: int(400 * scale), 1_000: int(40 * scale)}
    rates: dict[Key, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, postgres_server() as server:
        async with AsyncExitStack() as stack:
            engines = [await stack.enter_async_context(opened(name, Path(folder) / name, server)) for name in ENGINES]
            for engine in engines:
                await _warm_up(engine, events)
            for _ in range(rounds):
                for size, count in counts.items():
                    for engine in engines:
                        for arm in engine.arms:
                            in_flight = 1 if arm.name == "bare" else IN_FLIGHT[size]
                            rate = await throughput(arm, events.batches(count, size), in_flight)
                            _note(rates, (engine.name, size, arm.name), rate)
                for engine in engines:
                    (streamed,) = events.batches(1, 50 * counts[100])
                    _note(rates, (engine.name, STREAM, "door"), len(streamed) / await engine.door.stream(streamed))
            acknowledged = {
                engine.name: await acknowledge_ms(
                    engine.door,
                    events.batches(int(600 * scale), 100),
                    statistics.median(rates[engine.name, 100, "door"]) / 2,
                )
                for engine in engines
            }
    return rates, acknowledged


async def _warm_up(engine: Engine, events: Events) -> None:
    every = events.of_every_product()
    for start in range(0, len(every), 1_000):
        await engine.door.write(engine.door.prepare(every[start : start + 1_000]))
    for arm in engine.arms:
        await throughput(arm, events.batches(20, 100), 2)


def _note(rates: dict[Key, list[float]], key: Key, rate: float) -> None:
    rates.setdefault(key, []).append(rate)
    Console(stderr=True).print(*key, f"{rate:,.0f}/s")


def rows_of(rates: dict[Key, list[float]], acknowledged: dict[str, Floats]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {
            "data": f"events of {EVENT_BYTES} bytes",
            "method": arm,
            "engine": engine,
            "batch": batch,
            "events_per_s": round(statistics.median(values)),
            "lowest": round(min(values)),
            "highest": round(max(values)),
        }
        for (engine, batch, arm), values in rates.items()
    ]
    for engine, values in acknowledged.items():
        rows.append({"method": "door at half load", "engine": engine, "batch": 100, **quantiles(values)})
    return rows


def bars_of(rates: dict[Key, list[float]], acknowledged: dict[str, Floats]) -> list[Bar]:
    medians = {key: statistics.median(values) for key, values in rates.items()}
    bars: list[Bar] = []
    for engine in ENGINES:
        bars += [
            Bar.at_least(
                f"{engine}, batch {size}: door ÷ {arm}",
                0.5,
                round(medians[engine, size, "door"] / medians[engine, size, arm], 2),
            )
            for size in IN_FLIGHT
            for arm in ("bare", "append")
        ]
        rate = round(medians[engine, 100, "door"])
        bars.append(Bar.at_least(f"{engine}, batch 100: events/s", GOALS_AT_100[engine], rate))
        p99_ms = quantiles(acknowledged[engine])["p99_ms"]
        bars.append(Bar.at_most(f"{engine}, half load: acknowledged, p99 ms", 60, p99_ms))
    return bars


def main() -> None:
    arguments = base_parser(__doc__, quick="one round of a tenth of the events", seed=3).parse_args()
    rounds, scale = (1, 0.1) if arguments.quick else (3, 1.0)
    rates, acknowledged = uvloop.run(measure(rounds, scale, arguments.seed))
    Result(
        benchmark="ingest",
        settings={"rounds": rounds, "scale": scale, "in_flight": {str(size): n for size, n in IN_FLIGHT.items()}},
        seeds=[arguments.seed],
        rows=rows_of(rates, acknowledged),
        bars=bars_of(rates, acknowledged),
    ).write(arguments.json)


if __name__ == "__main__":
    main()
