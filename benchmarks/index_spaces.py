"""What does it cost an index to be given a new space, to be written over ten times, and to come back after a kill?

A real index process, everything through its gRPC door, vectors of 64 numbers in 2,000 clusters far apart, batches of
4,096 rows. `python -m benchmarks.index_spaces [--items N] [--quick] [--seed N] --json PATH`.

- re-embedding: all items into a new space while the old one answers 50 searches a second; then, once the last
  snapshot is written, cut-overs there and back, with searches one after the other meanwhile. cpu_s: user and system
  time of the process from the first batch to the first cut-over, its conditions included. mixed_answers: whose items
  or scores are not those of the space that they name. longest_search_ms: the longest within 50 ms of a cut-over, the
  median over cut-overs; longest_otherwise_ms: the same around moments at which nothing was cut over.
- rewriting: every item ten times in random order, 8 batches under way. What the process holds (RSS) and says that it
  holds afterwards, over what it did when it was filled; the most that its write-ahead log took on disk meanwhile.
- recovery: SIGKILL, then from the start of the process to SERVING, with everything in a snapshot and 120,000 rows in
  the log after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.runtime.threads import limit_threads

limit_threads()

import numpy as np
import psutil
from rich.console import Console

from benchmarks.arguments import base_parser
from benchmarks.index_search import F32, K, tight_vectors_of
from benchmarks.results import Bar, Result
from headrace.cli.suite import Suite
from headrace.index.rows import I64
from headrace.v1 import common_pb2, index_pb2

if TYPE_CHECKING:
    from headrace.v1.index_pb2_grpc import IndexServiceAsyncStub

DIMENSION, BATCH_ROWS = 64, 4_096
TAIL_ROWS = 120_000
_UNDER_WAY = 8
_SEARCHES_S = 50
_CUT_OVERS = 20
_AROUND_S = 0.05
_IDLE_S = 0.5
_REWRITES = 10
_CALL_S = 120.0
# scores of another kernel, of vectors of length 1
_ROUNDING = 1e-5

Row = dict[str, object]


class Index:
    """A running index process and what was sent to it."""

    def __init__(self, suite: Suite, stub: IndexServiceAsyncStub) -> None:
        self.suite, self.stub = suite, stub
        self.sequences: dict[str, int] = {}

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.suite.pid("index"))

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        used = self.process.cpu_times()
        return float(used.user + used.system)

    def log_bytes(self) -> int:
        """What the write-ahead log takes on disk."""
        total = 0
        for path in (self.suite.data_dir / "index" / "wal").glob("*.wal"):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                total += path.stat().st_size
        return total

    async def idle(self) -> None:
        """Returns once the process does next to nothing: no snapshot is being written."""
        used = -1.0
        while self.cpu_s() > used + _IDLE_S / 10:
            used = self.cpu_s()
            await asyncio.sleep(_IDLE_S)

    async def create(self, space: str) -> None:
        await self.stub.CreateSpace(index_pb2.CreateSpaceRequest(space=space, dimension=DIMENSION), timeout=_CALL_S)

    async def activate(self, space: str, **conditions: float) -> float:
        """Milliseconds until answered."""
        begun = time.perf_counter()
        request = index_pb2.ActivateSpaceRequest(space=space, **conditions)  # type: ignore[arg-type]
        await self.stub.ActivateSpace(request, timeout=_CALL_S)
        return (time.perf_counter() - begun) * 1e3

    async def stats(self, with_digest: bool = False) -> index_pb2.GetIndexStatsResponse:
        return await self.stub.GetIndexStats(
            index_pb2.GetIndexStatsRequest(with_digest=with_digest), timeout=_CALL_S, wait_for_ready=True
        )

    async def write(self, space: str, ordinals: I64, vectors: F32) -> int:
        """Writes rows in batches, some under way; the most bytes that the log took meanwhile."""
        stream = self.stub.ApplyEmbeddings()
        most = under_way = 0
        for start in range(0, len(ordinals), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            await stream.write(_batch(space, self.sequences.get(space, 0) + 1, ordinals[part], vectors[part]))
            self.sequences[space] = self.sequences.get(space, 0) + len(ordinals[part])
            under_way += 1
            if under_way == _UNDER_WAY:
                assert not (await stream.read()).gap  # type: ignore[union-attr]
                under_way, most = under_way - 1, max(most, self.log_bytes())
        await stream.done_writing()
        for _ in range(under_way):
            assert not (await stream.read()).gap  # type: ignore[union-attr]
        return most

    async def search(self, query: F32) -> index_pb2.IndexServiceSearchResponse:
        matrix = common_pb2.Matrix(rows=1, columns=DIMENSION, values=query.tobytes())
        return await self.stub.Search(index_pb2.IndexServiceSearchRequest(queries=matrix, k=K), timeout=_CALL_S)


def _batch(space: str, first_sequence: int, ordinals: I64, vectors: F32) -> index_pb2.ApplyEmbeddingsRequest:
    ids, values = ordinals.astype("<u4").tobytes(), vectors.tobytes()
    return index_pb2.ApplyEmbeddingsRequest(
        space=space,
        first_sequence=first_sequence,
        item_ordinals=ids,
        vectors=common_pb2.Matrix(rows=len(ordinals), columns=DIMENSION, values=values),
        checksum=zlib.crc32(values, zlib.crc32(ids)),
        log_offset=first_sequence,
    )


@contextlib.asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[Index]:
    """An index process of its own, with `settings` (HEADRACE_INDEX_*) beside the defaults."""
    environment = {f"HEADRACE_INDEX_{name.upper()}": value for name, value in settings.items()}
    environment |= {"HEADRACE_INDEX_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    async with Suite(folder, services=["index"], environment=environment) as suite, suite.client() as client:
        yield Index(suite, client.index)


@dataclass
class Watched:
    """Searches of the active space: when each began, how long it took, and those that mixed two spaces."""

    began_s: list[float] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    mixed: int = 0

    def longest_ms(self, begun_s: float, ended_s: float) -> float:
        """The longest search that was under way within 50 ms of something that happened then."""
        began, took = np.array(self.began_s), np.array(self.took_ms)
        near = (began < ended_s + _AROUND_S) & (began + took / 1e3 > begun_s - _AROUND_S)
        return float(took[near].max(initial=0.0))


@contextlib.asynccontextmanager
async def searched(
    index: Index, spaces: Mapping[str, F32], queries: Mapping[str, F32], pause_s: float
) -> AsyncIterator[Watched]:
    """Searches one after the other, or one every `pause_s`; every answer is compared with the space that it names."""
    watched, stop = Watched(), asyncio.Event()

    async def ask() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            query = queries["old" if number % 2 else "new"][number % 512]
            begun = time.perf_counter()
            answer = await index.search(query)
            took = time.perf_counter() - begun
            watched.began_s.append(begun)
            watched.took_ms.append(took * 1e3)
            watched.mixed += not _is_of(answer, spaces[answer.space], query)
            await asyncio.sleep(max(0.0, pause_s - took))

    asking = asyncio.create_task(ask())
    try:
        yield watched
    finally:
        stop.set()
        await asking


def _is_of(answer: index_pb2.IndexServiceSearchResponse, vectors: F32, query: F32) -> bool:
    """Whether all scores of an answer are those that its items have in one space."""
    items, scores = np.frombuffer(answer.item_ordinals, "<u4"), np.frombuffer(answer.scores, "<f4")
    return len(items) == K and bool(np.abs(vectors[items] @ query - scores).max() < _ROUNDING)


async def re_embedded(items: int, seed: int) -> Row:
    """A new space filled beside the old one, and cut-overs."""
    rng = np.random.default_rng(seed)
    spaces, queries = {}, {}
    for space in ("old", "new"):
        spaces[space], queries[space] = tight_vectors_of(items, DIMENSION, rng)
    everything = np.arange(items)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        async with running(Path(folder)) as index:
            await index.create("old")
            await index.write("old", everything, spaces["old"])
            await index.activate("old")
            cpu_s, begun = index.cpu_s(), time.perf_counter()
            async with searched(index, spaces, queries, 1 / _SEARCHES_S) as beside:
                await index.create("new")
                log_bytes = await index.write("new", everything, spaces["new"])
                filled_s = time.perf_counter() - begun
                conditional_ms = await index.activate(
                    "new", min_coverage=1.0, min_recall=0.95, min_sequence=index.sequences["new"]
                )
            cpu_s = index.cpu_s() - cpu_s
            await index.idle()
            cut_over_ms, longest_ms, otherwise_ms, around = await _cut_over_again(index, spaces, queries)
    return {
        "data": f"{items} x {DIMENSION}",
        "what": "re-embedding",
        "cpu_s": round(cpu_s, 2),
        "filled_s": round(filled_s, 2),
        "rows_per_s": round(items / filled_s),
        "searches": len(beside.took_ms) + len(around.took_ms),
        "mixed_answers": beside.mixed + around.mixed,
        "search_p50_ms": round(float(np.median(beside.took_ms)), 3),
        "search_p99_ms": round(float(np.quantile(beside.took_ms, 0.99)), 3),
        "conditional_cut_over_ms": round(conditional_ms, 1),
        "cut_over_p50_ms": round(float(np.median(cut_over_ms)), 3),
        "cut_over_max_ms": round(max(cut_over_ms), 3),
        "longest_search_ms": round(float(np.median(longest_ms)), 3),
        "longest_search_max_ms": round(max(longest_ms), 3),
        "longest_otherwise_ms": round(float(np.median(otherwise_ms)), 3),
        "longest_otherwise_max_ms": round(max(otherwise_ms), 3),
        "wal_mb": round(log_bytes / 2**20),
    }


async def _cut_over_again(
    index: Index, spaces: Mapping[str, F32], queries: Mapping[str, F32]
) -> tuple[list[float], list[float], list[float], Watched]:
    """Milliseconds of cut-overs to and fro, of the longest search around each and between them, and all searches."""
    took_ms, spans, between = [], [], []
    async with searched(index, spaces, queries, 0.0) as watched:
        for number in range(_CUT_OVERS):
            await asyncio.sleep(2 * _AROUND_S)
            between.append((time.perf_counter(), time.perf_counter()))
            await asyncio.sleep(2 * _AROUND_S)
            begun = time.perf_counter()
            took_ms.append(await index.activate("old" if number % 2 == 0 else "new"))
            spans.append((begun, time.perf_counter()))
        await asyncio.sleep(2 * _AROUND_S)
    return took_ms, *([watched.longest_ms(*span) for span in those] for those in (spans, between)), watched


async def rewritten(kind: str, items: int, seed: int) -> Row:
    """Memory and log of an index whose items are all written ten times more."""
    rng = np.random.default_rng(seed)
    vectors, _ = tight_vectors_of(items, DIMENSION, rng)
    # large ones get their cells by the setting's default
    cells = {"cells_from": str(min(items, 250_000))} if kind == "cells" else {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        async with running(Path(folder), segment=kind, **cells) as index:
            await index.create("s")
            await index.write("s", np.arange(items), vectors)
            rss, told = await _memory(index)
            begun, log_bytes = time.perf_counter(), 0
            for _ in range(_REWRITES):
                log_bytes = max(log_bytes, await index.write("s", rng.permutation(items), vectors))
            seconds = time.perf_counter() - begun
            rss_after, told_after = await _memory(index)
            [space] = (await index.stats()).spaces
    return {
        "data": f"{items} x {DIMENSION}",
        "what": f"rewriting {_REWRITES} times",
        "kind": space.segment_kind,
        "rows_per_s": round(_REWRITES * items / seconds),
        "rss_mb": round(rss / 2**20),
        "rss_over_before": round(rss_after / rss, 4),
        "told_mb": round(told / 2**20),
        "told_over_before": round(told_after / told, 4),
        "wal_mb": round(log_bytes / 2**20),
    }


async def _memory(index: Index) -> tuple[int, int]:
    """What the process holds and says that it holds."""
    return int(index.process.memory_info().rss), int((await index.stats()).memory_bytes)


async def recovered(items: int, seed: int) -> Row:
    """How long an index that was killed takes to serve again, and whether it holds what it held."""
    rng = np.random.default_rng(seed)
    vectors, _ = tight_vectors_of(items, DIMENSION, rng)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        async with running(Path(folder)) as index:
            await index.create("s")
            await index.write("s", np.arange(items), vectors)
            # a stop ends with a snapshot
            await index.suite.stop("index", grace_s=_CALL_S)
            await _started(index)
            tail = rng.integers(0, items, TAIL_ROWS)
            await index.write("s", tail, vectors[rng.permutation(items)[:TAIL_ROWS] if items > TAIL_ROWS else tail])
            before = await index.stats(with_digest=True)
            await index.suite.kill("index")
            seconds = await _started(index)
            after = await index.stats(with_digest=True)
    return {
        "data": f"{items} x {DIMENSION}",
        "what": "recovery",
        "kind": after.spaces[0].segment_kind,
        "tail_rows": TAIL_ROWS,
        "serving_s": round(seconds, 2),
        "is_what_it_was": before.spaces[0].digest == after.spaces[0].digest,
    }


async def _started(index: Index) -> float:
    begun = time.perf_counter()
    await index.suite.start("index")
    await index.suite.wait_ready()
    return time.perf_counter() - begun


def _number(row: Row, name: str) -> float:
    return float(str(row[name]))


def bars_of(rows: list[Row]) -> Iterator[Bar]:
    for row in rows:
        data = row["data"]
        if row["what"] == "re-embedding":
            yield Bar.at_most(f"{data}: CPU seconds to re-embed", 10, _number(row, "cpu_s"))
            yield Bar.at_most(f"{data}: answers that mix two spaces", 0, _number(row, "mixed_answers"))
            yield Bar.at_most(f"{data}: cut-over, ms", 5, _number(row, "cut_over_p50_ms"))
            yield Bar.at_most(f"{data}: longest search around a cut-over, ms", 5, _number(row, "longest_search_ms"))
        elif row["what"] == "recovery":
            yield Bar.at_most(f"{data}: start to SERVING after a kill, s", 10, _number(row, "serving_s"))
            yield Bar.at_least(f"{data}: it is what it was", 1, float(bool(row["is_what_it_was"])))
        else:
            name = f"{data} {row['kind']}"
            yield Bar.at_most(f"{name}: RSS after ten rewrites over before", 1.1, _number(row, "rss_over_before"))
            yield Bar.at_most(f"{name}: told bytes after over before", 1.1, _number(row, "told_over_before"))
            yield Bar.at_most(f"{name}: most write-ahead log, MB", 1_024, _number(row, "wal_mb"))


async def measured(items: int, seed: int) -> list[Row]:
    console = Console(stderr=True)
    rows = []
    for work in (
        partial(re_embedded, items, seed),
        partial(recovered, items, seed),
        partial(rewritten, "cells", items, seed),
        partial(rewritten, "compact", items, seed),
        partial(rewritten, "flat", items, seed),
    ):
        rows.append(await work())
        console.print(rows[-1], highlight=False)
    return rows


def main() -> None:
    parser = base_parser(__doc__, quick="50,000 items")
    parser.add_argument("--items", type=int, default=1_000_000)
    arguments = parser.parse_args()
    items = 50_000 if arguments.quick else arguments.items
    rows = asyncio.run(measured(items, arguments.seed))
    settings = {"k": K, "batch_rows": BATCH_ROWS, "under_way": _UNDER_WAY, "searches_per_s": _SEARCHES_S}
    Result("index_spaces", settings, [arguments.seed], rows, list(bars_of(rows))).write(arguments.json)


if __name__ == "__main__":
    main()
