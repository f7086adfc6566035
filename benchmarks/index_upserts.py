"""What do readers feel of vectors that change all the time, and how fast are changes durable?

Readers: one thread asks for the nearest 100 of a vector, 500 times a second, while another replaces vectors of the same
index at a steady rate, a hundred batches a second. `python -m benchmarks.index_upserts [--items N] [--dimension D]
[--quick] [--seed N] --json PATH`. The rivals hnswlib and usearch come with `make rivals`.

- read_p50_ms, read_p99_ms: time of a query; medians of rounds that go through all methods and rates in turn.
- p99_over_idle: against the same method without writes. applied_share: replaced of what was to be replaced.
- durable: batches of 500 through the index's store, 8 under way: acknowledged when written, synced and visible.
  Beside it the same bytes written and synced by nothing but the file system.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.runtime.threads import limit_threads

limit_threads()

import numpy as np

from benchmarks.arguments import base_parser
from benchmarks.index_search import F32, K, fill, hnswlib_of, require_rivals, usearch_of, vectors_of
from benchmarks.results import Bar, Result
from headrace.index.batch import Batch
from headrace.index.compact_segment import CompactSegment
from headrace.index.flat_segment import FlatSegment
from headrace.index.rows import NO_ORDINALS, Change, Rows
from headrace.index.segment import Segment
from headrace.index.store import Store

RATES = (0, 1_000, 10_000)
_READS_S = 500
_WRITES_S = 100
_BATCH_ROWS, _UNDER_WAY = 500, 8


@dataclass(frozen=True)
class Method:
    name: str
    find: Callable[[F32], object]
    replace: Callable[[np.ndarray, F32], None]


def methods_of(vectors: F32) -> list[Method]:
    return [
        _segment("headrace compact", CompactSegment(vectors.shape[1]), vectors),
        _segment("headrace flat", FlatSegment(vectors.shape[1]), vectors),
        _hnswlib(vectors),
        _usearch(vectors),
    ]


def _segment(name: str, segment: Segment, vectors: F32) -> Method:
    def replace(ordinals: np.ndarray, rows: F32) -> None:
        sequence = segment.sequence + len(ordinals)
        numbers = np.full(len(ordinals), sequence)
        changed = Rows(ordinals.astype(np.uint32), rows, numbers, numbers)
        segment.write(Change(changed, NO_ORDINALS, sequence, sequence))

    fill(segment, vectors)
    return Method(name, lambda queries: segment.search(queries, K), replace)


def _hnswlib(vectors: F32) -> Method:
    index = hnswlib_of(vectors)
    index.set_ef(150)
    return Method(
        "hnswlib",
        lambda queries: index.knn_query(queries, K, num_threads=1),
        lambda ordinals, rows: index.add_items(rows, ordinals, num_threads=1),
    )


def _usearch(vectors: F32) -> Method:
    index = usearch_of(vectors)
    index.expansion_search = 150

    def replace(ordinals: np.ndarray, rows: F32) -> None:
        index.remove(ordinals)
        index.add(ordinals, rows, threads=1)

    return Method("usearch", lambda queries: index.search(queries, K, threads=1), replace)


@dataclass(frozen=True)
class Felt:
    """What readers felt of one rate, and what share of the writes was done."""

    p50_ms: float
    p99_ms: float
    applied: float


def felt(method: Method, rate: int, queries: F32, fresh: F32, items: int, seconds: float) -> Felt:
    """Reads for some seconds beside a writer at `rate` rows a second."""
    stop, applied = threading.Event(), [0]

    def write() -> None:
        rng, rows, begun = np.random.default_rng(7), rate // _WRITES_S, time.perf_counter()
        while not stop.is_set():
            due = begun + (applied[0] // rows) / _WRITES_S
            stop.wait(max(0.0, due - time.perf_counter()))
            ordinals = rng.choice(items, rows, replace=False)
            method.replace(ordinals, fresh[rng.integers(0, len(fresh), rows)])
            applied[0] += rows

    writer = threading.Thread(target=write)
    if rate:
        writer.start()
    took = _read(method, queries, seconds)
    written = applied[0]
    stop.set()
    if rate:
        writer.join()
    p50, p99 = np.quantile(took, [0.5, 0.99]) * 1e3
    return Felt(float(p50), float(p99), min(1.0, written / (rate * seconds)) if rate else 1.0)


def _read(method: Method, queries: F32, seconds: float) -> list[float]:
    took, begun = [], time.perf_counter()
    for number in range(round(seconds * _READS_S)):
        time.sleep(max(0.0, begun + number / _READS_S - time.perf_counter()))
        at = number % len(queries)
        started = time.perf_counter()
        method.find(queries[at : at + 1])
        took.append(time.perf_counter() - started)
    return took


def readers(items: int, dimension: int, seconds: float, rounds: int, seed: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    vectors, queries = vectors_of(items, dimension, rng)
    fresh = vectors_of(20_000, dimension, rng)[0]
    methods = methods_of(vectors)
    found: dict[tuple[str, int], list[Felt]] = {(method.name, rate): [] for method in methods for rate in RATES}
    for _ in range(rounds):
        for rate in RATES:
            for method in methods:
                found[method.name, rate].append(felt(method, rate, queries, fresh, items, seconds))
    return [_row(f"{items} x {dimension}", name, rate, found[name, rate], found[name, 0]) for name, rate in found]


def _row(data: str, name: str, rate: int, told: Sequence[Felt], idle: Sequence[Felt]) -> dict[str, object]:
    p50, p99 = (float(np.median([getattr(one, field) for one in told])) for field in ("p50_ms", "p99_ms"))
    return {
        "data": data,
        "method": name,
        "upserts_per_s": rate,
        "read_p50_ms": round(p50, 4),
        "read_p99_ms": round(p99, 4),
        "p99_over_idle": round(p99 / float(np.median([one.p99_ms for one in idle])), 3),
        "applied_share": round(float(np.median([one.applied for one in told])), 4),
    }


async def durable(items: int, dimension: int, seconds: float, seed: int) -> list[dict[str, object]]:
    """Acknowledged rows a second through the store, and through a file alone."""
    fresh = vectors_of(20_000, dimension, np.random.default_rng(seed))[0]
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        store = Store(Path(folder), CompactSegment)
        await store.create("s", dimension)
        acknowledged = await _sent(store, fresh, items, seconds)
        await store.close()
        size = _BATCH_ROWS * (dimension * 4 + 4)
        alone = _synced(Path(folder) / "alone", size * _UNDER_WAY, seconds / 2) / size * _BATCH_ROWS
    data = f"{items} x {dimension}, batches of {_BATCH_ROWS}"
    return [
        {"data": data, "method": "headrace store", "durable_upserts_per_s": round(acknowledged / seconds)},
        {"data": data, "method": "write and fdatasync alone", "durable_upserts_per_s": round(alone)},
    ]


async def _sent(store: Store, fresh: F32, items: int, seconds: float) -> int:
    rng, sequence, acknowledged = np.random.default_rng(1), 1, 0
    under_way: list[asyncio.Future[object]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        while len(under_way) < _UNDER_WAY:
            ordinals = rng.choice(items, _BATCH_ROWS, replace=False).astype(np.uint32)
            rows = fresh[rng.integers(0, len(fresh), _BATCH_ROWS)]
            batch = Batch("s", sequence, ordinals, rows, np.zeros(_BATCH_ROWS, np.bool_), sequence)
            under_way.append(store.apply(batch))
            sequence += _BATCH_ROWS
        await under_way.pop(0)
        acknowledged += _BATCH_ROWS
    await asyncio.gather(*under_way)
    return acknowledged


def _synced(path: Path, size: int, seconds: float) -> float:
    """Bytes a second that are written and synced, `size` at a time."""
    data, written, begun = os.urandom(size), 0, time.perf_counter()
    with path.open("wb", buffering=0) as file:
        while time.perf_counter() < begun + seconds:
            file.write(data)
            os.fdatasync(file.fileno())
            written += size
    return written / (time.perf_counter() - begun)


def bars_of(rows: Sequence[dict[str, object]]) -> list[Bar]:
    ours = {row["upserts_per_s"]: row for row in rows if row["method"] == "headrace compact"}
    durable_rate = next(row["durable_upserts_per_s"] for row in rows if row["method"] == "headrace store")
    return [
        *(
            Bar.at_most(f"readers' p99 at {rate} upserts/s over idle", limit, float(str(ours[rate]["p99_over_idle"])))
            for rate, limit in ((1_000, 1.2), (10_000, 1.5))
        ),
        Bar.at_least("share of 10,000 upserts/s that is applied", 0.99, float(str(ours[10_000]["applied_share"]))),
        Bar.at_least("durable upserts/s", 20_000, float(str(durable_rate))),
    ]


def main() -> None:
    parser = base_parser(__doc__, quick="10,000 items, a second each")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=64)
    arguments = parser.parse_args()
    require_rivals()
    items, seconds, rounds = (10_000, 1.0, 1) if arguments.quick else (arguments.items, 4.0, 3)
    rows = readers(items, arguments.dimension, seconds, rounds, arguments.seed)
    rows += asyncio.run(durable(items, arguments.dimension, 2 * seconds, arguments.seed))
    settings = {"k": K, "reads_per_s": _READS_S, "batches_per_s": _WRITES_S, "seconds": seconds, "rounds": rounds}
    Result("index_upserts", settings, [arguments.seed], rows, bars_of(rows)).write(arguments.json)


if __name__ == "__main__":
    main()
