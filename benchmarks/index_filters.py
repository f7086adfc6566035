"""How exact and how fast is a search that a filter leaves few items to?

The nearest 100 of a vector among 50, 10, 1 and 0.2 percent of the items, chosen at random; one thread, one query a
call. `python -m benchmarks.index_filters [--items N] [--dimension D] [--quick] [--seed N] --json PATH`.

Methods: headrace compact and flat, given a bitmap over ordinals; faiss Flat, IVFFlat and HNSW, given the same bitmap
as an ID selector. recall_at_100: share of the true best (100, or all that the filter leaves) that were found.
ms: median of a query; over_unfiltered: against the same method without a filter. Rounds go through all in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from headrace.runtime.threads import limit_threads

limit_threads()

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import base_parser
from benchmarks.index_search import F32, K, fill, inverted_lists, seconds_of, vectors_of
from benchmarks.results import Bar, Result
from headrace.index.compact_segment import CompactSegment
from headrace.index.flat_segment import FlatSegment
from headrace.index.rows import U8
from headrace.index.segment import Segment

SHARES = (1.0, 0.5, 0.1, 0.01, 0.002)
_QUERIES = 64
_LISTS_PROBED, _EFFORT = 32, 200

Find = Callable[[F32, U8 | None], NDArray[np.integer]]


@dataclass(frozen=True)
class Method:
    name: str
    find: Find


def methods_of(vectors: F32) -> Iterator[Method]:
    kinds: tuple[Segment, ...] = (CompactSegment(vectors.shape[1]), FlatSegment(vectors.shape[1]))
    for segment in kinds:
        fill(segment, vectors)
        name = f"headrace {segment.kind.removesuffix('-cpu')}"
        yield Method(name, lambda queries, allow, of=segment: of.search(queries, K, allow).ordinals_QK)
    yield _faiss("faiss Flat", faiss.IndexFlatIP(vectors.shape[1]), vectors, faiss.SearchParameters)
    inverted = inverted_lists(*vectors.shape)
    probing = partial(faiss.SearchParametersIVF, nprobe=_LISTS_PROBED)
    yield _faiss("faiss IVFFlat", inverted, vectors, probing)
    graph = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    yield _faiss("faiss HNSW", graph, vectors, partial(faiss.SearchParametersHNSW, efSearch=_EFFORT))


def _faiss(name: str, index: faiss.Index, vectors: F32, parameters: Callable[..., object]) -> Method:
    index.train(vectors)
    index.add(vectors)

    def find(queries: F32, allow: U8 | None) -> NDArray[np.integer]:
        selector = None if allow is None else faiss.IDSelectorBitmap(len(allow), faiss.swig_ptr(allow))
        found: NDArray[np.integer] = index.search(queries, K, params=parameters(sel=selector))[1]
        return found

    return Method(name, find)


def measured(items: int, dimension: int, rounds: int, seed: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    vectors, queries = vectors_of(items, dimension, rng)
    queries = queries[:_QUERIES]
    methods = list(methods_of(vectors))
    allowed = {share: rng.random(items) < share for share in SHARES}
    bitmaps = {share: None if share == 1 else np.packbits(allowed[share], bitorder="little") for share in SHARES}
    took: dict[tuple[str, float], list[float]] = {(method.name, share): [] for method in methods for share in SHARES}
    for _ in range(rounds):
        for share in SHARES:
            for method in methods:
                find = partial(method.find, allow=bitmaps[share])
                took[method.name, share] += seconds_of(find, (queries[at : at + 1] for at in range(len(queries))))
    return [
        {
            "data": f"{items} x {dimension}",
            "method": method.name,
            "allowed_share": share,
            "recall_at_100": round(_recall(method.find, vectors, queries, allowed[share], bitmaps[share]), 4),
            "ms": round(float(np.median(took[method.name, share])) * 1e3, 4),
            "over_unfiltered": round(float(np.median(took[method.name, share]) / np.median(took[method.name, 1.0])), 3),
        }
        for method in methods
        for share in SHARES
    ]


def _recall(find: Find, vectors: F32, queries: F32, allowed: NDArray[np.bool_], allow: U8 | None) -> float:
    scores = queries @ vectors.T
    scores[:, ~allowed] = -np.inf
    wanted = min(K, int(allowed.sum()))
    truth = np.argpartition(-scores, wanted - 1, axis=1)[:, :wanted]
    found = find(queries, allow)
    return float(np.mean([len(np.intersect1d(one, other)) for one, other in zip(found, truth, strict=True)])) / wanted


def bars_of(rows: Sequence[dict[str, object]]) -> list[Bar]:
    ours = [row for row in rows if row["method"] == "headrace compact" and row["allowed_share"] != 1.0]
    return [
        Bar.at_least("recall@100, the least of all shares", 1.0, min(float(str(row["recall_at_100"])) for row in ours)),
        Bar.at_most("time over unfiltered, the most", 1.2, max(float(str(row["over_unfiltered"])) for row in ours)),
    ]


def main() -> None:
    parser = base_parser(__doc__, quick="10,000 items, few rounds")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=64)
    arguments = parser.parse_args()
    items, rounds = (10_000, 2) if arguments.quick else (arguments.items, 9)
    rows = measured(items, arguments.dimension, rounds, arguments.seed)
    settings = {"k": K, "threads": 1, "rounds": rounds, "nprobe": _LISTS_PROBED, "efSearch": _EFFORT}
    Result("index_filters", settings, [arguments.seed], rows, bars_of(rows)).write(arguments.json)


if __name__ == "__main__":
    main()
