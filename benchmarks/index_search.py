"""How fast are the nearest vectors found, one query at a time and many, beside the libraries that people use?

One thread, inner products of vectors of length 1 that stand in clusters as a shop's items do; k = 100. Rounds go
through all methods in turn, so that what else the machine does falls on all alike; medians of rounds.
`python -m benchmarks.index_search [--items 10000,100000] [--dimensions 64,128] [--graphs-up-to N] [--tight] [--quick]
[--seed N] --json PATH`. The rivals hnswlib and usearch come with `make rivals`.

Methods: headrace compact (int8 scan, exact), flat (Faiss's kernel, exact) and, of 250,000 items or more, cells;
faiss Flat, Flat of fp16, IVFFlat and HNSW; hnswlib; usearch. What is not exact is set to the least effort that finds
`--least-recall` of the best (`effort`).
single_ms: median time of a query alone. batch_qps: queries a second, 64 at a time. recall_at_100: share of the true
best 100 that were found. upserts_per_s_by_500, _by_4096: vectors that ours take a second, in batches of so many.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from headrace.runtime.threads import limit_threads

limit_threads()

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.arguments import base_parser
from benchmarks.results import Bar, Result
from headrace.index.cell_segment import CellSegment
from headrace.index.compact_segment import CompactSegment
from headrace.index.flat_segment import FlatSegment
from headrace.index.rows import NO_ORDINALS, Change, Rows
from headrace.index.segment import Segment

if TYPE_CHECKING:
    import hnswlib
    import usearch.index

K = 100
BATCH = 64
TIGHT_CLUSTERS, TIGHT_SPREAD = 2_000, 0.3
CELLS_FROM = 250_000
EFFORTS = (100, 120, 150, 200, 300, 400, 600, 800, 1200)
PROBES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_GROUP = 100  # items of a cluster, about
_TIGHT = ", tight clusters"

F32 = NDArray[np.float32]
Find = Callable[[F32], NDArray[np.integer]]


@dataclass
class Method:
    """A built index; `find` gives the best K of each query, in any order."""

    name: str
    find: Find
    build_s: float
    effort: int = 0
    recall: float = 0.0
    segment: Segment | None = None


def vectors_of(items: int, dimension: int, rng: np.random.Generator) -> tuple[F32, F32]:
    """Items in clusters, and queries that lie near items."""
    centres = rng.standard_normal((max(items // _GROUP, 1), dimension))
    vectors = _unit(centres[rng.integers(0, len(centres), items)] + rng.standard_normal((items, dimension)))
    queries = _unit(vectors[rng.integers(0, items, 512)] + rng.normal(0, 0.7 * dimension**-0.5, (512, dimension)))
    return vectors, queries


def tight_vectors_of(
    items: int, dimension: int, rng: np.random.Generator, centres: F32 | None = None
) -> tuple[F32, F32]:
    """Items in 2,000 clusters far apart (their own, or those around `centres`), and queries from among the same."""
    if centres is None:
        centres = rng.standard_normal((TIGHT_CLUSTERS, dimension), np.float32)
    made = [_around(centres, count, rng) for count in (items, 512)]
    return made[0], made[1]


def _around(centres: F32, count: int, rng: np.random.Generator) -> F32:
    noise = TIGHT_SPREAD * rng.standard_normal((count, centres.shape[1]), np.float32)
    return _unit(centres[rng.integers(0, len(centres), count)] + noise)


def _unit(rows: NDArray[np.floating]) -> F32:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def methods_of(vectors: F32, queries: F32, with_graphs: bool, least_recall: float) -> Iterator[Method]:
    """Every method, built and set."""
    truth = _truth(vectors, queries)
    yield from _segments(vectors, least_recall)
    yield from _flat(vectors)
    yield _least(_ivf(vectors), PROBES, queries, truth, least_recall)
    if with_graphs:
        for build in (_faiss_hnsw, _hnswlib, _usearch):
            yield _least(build(vectors), EFFORTS, queries, truth, least_recall)


def _segments(vectors: F32, least_recall: float) -> Iterator[Method]:
    segments: dict[str, Segment] = {
        "headrace compact": CompactSegment(vectors.shape[1]),
        "headrace flat": FlatSegment(vectors.shape[1]),
    }
    if len(vectors) >= CELLS_FROM:
        segments["headrace cells"] = CellSegment(vectors.shape[1], cells_from=CELLS_FROM, recall_goal=least_recall)
    for name, segment in segments.items():
        begun = time.perf_counter()
        fill(segment, vectors)
        seconds = time.perf_counter() - begun
        effort = segment.probes if isinstance(segment, CellSegment) else 0
        find = partial(_found, segment)
        yield Method(name, find, seconds, effort, segment=segment)


def _found(segment: Segment, queries: F32) -> NDArray[np.integer]:
    return segment.search(queries, K).ordinals_QK


def fill(segment: Segment, vectors: F32) -> None:
    """Puts the vectors in as items 0, 1, 2 …"""
    numbers = np.arange(len(vectors))
    segment.fill([Rows(numbers.astype(np.uint32), vectors, numbers, numbers)], 1, 1)


def _flat(vectors: F32) -> Iterator[Method]:
    dimension = vectors.shape[1]
    halves = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for name, index in (("faiss Flat", faiss.IndexFlatIP(dimension)), ("faiss Flat fp16", halves)):
        begun = time.perf_counter()
        index.train(vectors)
        index.add(vectors)
        yield Method(name, lambda queries, of=index: of.search(queries, K)[1], time.perf_counter() - begun)


Settable = tuple[str, Callable[[int], None], Find, float]


def inverted_lists(items: int, dimension: int) -> faiss.IndexIVFFlat:
    """An empty IVFFlat with 4 √items lists, as Faiss's guidelines have it."""
    lists = int(4 * items**0.5)
    return faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)


def _ivf(vectors: F32) -> Settable:
    begun = time.perf_counter()
    index = inverted_lists(*vectors.shape)
    index.train(vectors[: 50 * index.nlist])
    index.add(vectors)
    seconds = time.perf_counter() - begun
    return "faiss IVFFlat", lambda probes: setattr(index, "nprobe", probes), lambda q: index.search(q, K)[1], seconds


def _faiss_hnsw(vectors: F32) -> Settable:
    begun = time.perf_counter()
    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    index.add(vectors)
    seconds = time.perf_counter() - begun
    return "faiss HNSW", lambda ef: setattr(index.hnsw, "efSearch", ef), lambda q: index.search(q, K)[1], seconds


def hnswlib_of(vectors: F32) -> hnswlib.Index:
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=200, M=16)
    index.add_items(vectors, num_threads=os.cpu_count())
    return index


def usearch_of(vectors: F32) -> usearch.index.Index:
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=16, expansion_add=200)
    index.add(np.arange(len(vectors)), vectors, threads=os.cpu_count() or 1)
    return index


def require_rivals() -> None:
    """Ends the program, saying how they are installed, when some are not."""
    missing = [name for name in ("hnswlib", "usearch") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (make rivals)")


def _hnswlib(vectors: F32) -> Settable:
    begun = time.perf_counter()
    index = hnswlib_of(vectors)
    seconds = time.perf_counter() - begun
    index.set_num_threads(1)
    return "hnswlib", index.set_ef, lambda queries: index.knn_query(queries, K)[0], seconds


def _usearch(vectors: F32) -> Settable:
    begun = time.perf_counter()
    index = usearch_of(vectors)
    seconds = time.perf_counter() - begun

    def find(queries: F32) -> NDArray[np.integer]:
        keys = index.search(queries, K, threads=1).keys
        return keys if keys.ndim == 2 else keys[None]

    return "usearch", lambda ef: setattr(index, "expansion_search", ef), find, seconds


def _least(
    built: Settable, efforts: Sequence[int], queries: F32, truth: NDArray[np.integer], least_recall: float
) -> Method:
    """The method set to the least effort that recalls enough, or the greatest there is."""
    name, set_effort, find, build_s = built
    for effort in efforts:
        set_effort(effort)
        method = Method(name, find, build_s, effort, recall_of(find, queries, truth))
        if method.recall >= least_recall:
            break
    return method


def _truth(vectors: F32, queries: F32) -> NDArray[np.integer]:
    best = [np.argpartition(-(part @ vectors.T), K, axis=1)[:, :K] for part in np.split(queries, len(queries) // BATCH)]
    return np.concatenate(best)


def recall_of(find: Find, queries: F32, truth: NDArray[np.integer]) -> float:
    found = np.concatenate([find(part) for part in np.split(queries, len(queries) // BATCH)])
    hits = [len(np.intersect1d(one, other)) for one, other in zip(found, truth, strict=True)]
    return float(np.mean(hits)) / K


def timed(methods: Sequence[Method], queries: F32, rounds: int) -> Iterator[tuple[Method, float, float]]:
    """Median milliseconds of a query alone, and queries a second in batches, of every method."""
    singles: dict[str, list[float]] = {method.name: [] for method in methods}
    batches: dict[str, list[float]] = {method.name: [] for method in methods}
    for number in range(rounds):
        chosen = np.roll(queries, -number * BATCH, axis=0)[:BATCH]
        for method in methods:
            singles[method.name] += seconds_of(method.find, (chosen[at : at + 1] for at in range(BATCH)))
            batches[method.name] += seconds_of(method.find, [chosen])
    for method in methods:
        yield method, float(np.median(singles[method.name])) * 1e3, BATCH / float(np.median(batches[method.name]))


def seconds_of(find: Find, calls: Iterable[F32]) -> list[float]:
    seconds = []
    for queries in calls:
        begun = time.perf_counter()
        find(queries)
        seconds.append(time.perf_counter() - begun)
    return seconds


def measured(
    shape: tuple[int, int], is_tight: bool, with_graphs: bool, least_recall: float, rounds: int, seed: int
) -> list[dict[str, object]]:
    items, dimension = shape
    make = tight_vectors_of if is_tight else vectors_of
    vectors, queries = make(items, dimension, np.random.default_rng(seed))
    truth, console = _truth(vectors, queries), Console(stderr=True)
    methods = []
    for method in methods_of(vectors, queries, with_graphs, least_recall):
        # what was set by its recall knows it
        method.recall = method.recall or recall_of(method.find, queries, truth)
        console.print(f"{items} x {dimension}: {method.name} built in {method.build_s:.1f} s", highlight=False)
        methods.append(method)
    return [
        {
            "data": f"{items} x {dimension}{_TIGHT if is_tight else ''}",
            "method": method.name,
            "effort": method.effort,
            "recall_at_100": round(method.recall, 4),
            "single_ms": round(single_ms, 4),
            "batch_qps": round(batch_qps, 1),
            "build_s": round(method.build_s, 2),
            **_upserts_per_s(method, vectors),
        }
        for method, single_ms, batch_qps in timed(methods, queries, rounds)
    ]


def _upserts_per_s(method: Method, vectors: F32) -> dict[str, object]:
    """How many vectors a second one of ours takes, in batches of 500 and of 4,096, after all searches."""
    if method.segment is None:
        return {}
    return {f"upserts_per_s_by_{rows}": round(written_per_s(method.segment, vectors, rows)) for rows in (500, 4_096)}


def written_per_s(segment: Segment, vectors: F32, rows: int) -> float:
    """Items get other items' vectors, `rows` at a time."""
    chosen = np.random.default_rng(1).permutation(len(vectors))[: max(rows, 100_000 // rows * rows)]
    begun = time.perf_counter()
    for start in range(0, len(chosen), rows):
        part = chosen[start : start + rows]
        sequence = segment.sequence + len(part)
        numbers = np.full(len(part), sequence)
        changed = Rows(part.astype(np.uint32), vectors[chosen[::-1][start : start + rows]], numbers, numbers)
        segment.write(Change(changed, NO_ORDINALS, sequence, sequence))
    return len(chosen) / (time.perf_counter() - begun)


def bars_of(rows: Sequence[dict[str, object]]) -> list[Bar]:
    """The bars of whatever was run."""
    return [
        *_exact_bars(_by_method(rows, "100000 x 64")),
        *_cell_bars(_by_method(rows, "1000000 x 64"), "1,000,000 in cells"),
        *_cell_bars(_by_method(rows, f"1000000 x 64{_TIGHT}"), f"1,000,000 in cells{_TIGHT}"),
    ]


def _by_method(rows: Sequence[dict[str, object]], data: str) -> dict[str, dict[str, float]]:
    return {str(row["method"]): row for row in rows if row["data"] == data}  # type: ignore[misc]


def _exact_bars(found: dict[str, dict[str, float]]) -> list[Bar]:
    if not {"hnswlib", "faiss Flat"} <= set(found):
        return []
    ours, graph, flat = (found[name] for name in ("headrace compact", "hnswlib", "faiss Flat"))
    return [
        Bar.at_least("recall@100", 0.999, ours["recall_at_100"]),
        Bar.at_least("batch QPS over hnswlib's", 2.0, ours["batch_qps"] / graph["batch_qps"]),
        Bar.at_least("batch QPS over Faiss Flat's", 8.0, ours["batch_qps"] / flat["batch_qps"]),
        Bar.at_most("single query over hnswlib's", 1.1, ours["single_ms"] / graph["single_ms"]),
        Bar.at_least("Faiss Flat's single query over ours", 3.0, flat["single_ms"] / ours["single_ms"]),
    ]


def _cell_bars(found: dict[str, dict[str, float]], name: str) -> list[Bar]:
    if "headrace cells" not in found:
        return []
    ours, static = found["headrace cells"], found["faiss IVFFlat"]
    return [
        Bar.at_least(f"{name}: recall@100", 0.97, ours["recall_at_100"]),
        Bar.at_least(f"{name}: batch QPS over IVFFlat's", 0.8, ours["batch_qps"] / static["batch_qps"]),
        *(
            Bar.at_least(f"{name}: upserts/s by {rows}", 200_000, ours[f"upserts_per_s_by_{rows}"])
            for rows in (500, 4_096)
        ),
    ]


def main() -> None:
    parser = base_parser(__doc__, quick="10,000 items of 64 numbers, few rounds")
    parser.add_argument("--items", type=_numbers, default=[10_000, 100_000])
    parser.add_argument("--dimensions", type=_numbers, default=[64, 128])
    parser.add_argument("--graphs-up-to", type=int, default=100_000, help="items; beyond, graphs take minutes to build")
    parser.add_argument("--least-recall", type=float, default=0.95, help="what is not exact is set to find this share")
    parser.add_argument("--tight", action="store_true", help="items in 2,000 clusters far apart")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    require_rivals()
    shapes = [(items, dimension) for items in arguments.items for dimension in arguments.dimensions]
    if arguments.quick:
        shapes, arguments.rounds = [(10_000, 64)], 3
    rows = [
        row
        for shape in shapes
        for row in measured(
            shape,
            arguments.tight,
            shape[0] <= arguments.graphs_up_to,
            arguments.least_recall,
            arguments.rounds,
            arguments.seed,
        )
    ]
    settings = {
        "k": K,
        "batch": BATCH,
        "threads": 1,
        "rounds": arguments.rounds,
        "least_recall": arguments.least_recall,
    }
    Result("index_search", settings, [arguments.seed], rows, bars_of(rows)).write(arguments.json)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be numbers between commas, got {text!r}") from error


if __name__ == "__main__":
    main()
