"""How fast does the pre-trained encoder read on one thread, and what do its 8 bits cost?

The same network in 32-bit floats is the rival: `python -m benchmarks.text_encoder [--data FOLDER] --json PATH`.
Titles of `online_retail` when FOLDER holds it, else of the simulated shop; needs the extra `text`.

- titles_per_s: distinct titles in one call, nothing cached. query_ms: one title a call.
- same_neighbours: the share of each title's ten nearest others that both agree on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.results import Bar, Result
from headrace.datasets.source import SIMULATED_SHOP, find
from headrace.model.text.minilm import MiniLmEncoder
from headrace.model.text.weights import UPSTREAM_SHA256, packaged_folder, read_files

TITLES = 2_000
QUERIES = 300
ROUNDS = 3
NEAREST = 10


def titles_of(dataset: str, data: Path | None) -> list[str]:
    """Distinct titles, in an order that has nothing to do with the shop's."""
    found = {product.title for batch in find(dataset, data).products() for product in batch if product.title}
    shuffled = np.random.default_rng(7).permutation(sorted(found))
    return [str(title) for title in shuffled[:TITLES]]


def speed(encoder: MiniLmEncoder, titles: Sequence[str]) -> dict[str, float]:
    """The best of three rounds, after a warm-up."""
    encoder.encode(titles[:100])
    batch_s = min(_seconds(encoder, [titles]) for _ in range(ROUNDS))
    single_s = min(_seconds(encoder, [[title] for title in titles[:QUERIES]]) for _ in range(ROUNDS))
    queries = len(titles[:QUERIES])
    return {"titles_per_s": round(len(titles) / batch_s, 1), "query_ms": round(single_s / queries * 1e3, 2)}


def _seconds(encoder: MiniLmEncoder, calls: Sequence[Sequence[str]]) -> float:
    begun = time.perf_counter()
    for texts in calls:
        encoder.encode(texts)
    return time.perf_counter() - begun


def likeness(exact_vectors: NDArray[np.float32], rounded_vectors: NDArray[np.float32]) -> dict[str, float]:
    """How near the vectors are, and how many of the nearest neighbours are the same."""
    cosines = (exact_vectors * rounded_vectors).sum(axis=1)
    shared = [
        len(set(exact) & set(rounded))
        for exact, rounded in zip(_nearest(exact_vectors), _nearest(rounded_vectors), strict=True)
    ]
    return {
        "least_cosine": round(float(cosines.min()), 4),
        "mean_cosine": round(float(cosines.mean()), 4),
        "same_neighbours": round(float(np.mean(shared)) / NEAREST, 4),
    }


def _nearest(vectors: NDArray[np.float32]) -> list[list[int]]:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest: list[list[int]] = np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST].tolist()
    return nearest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = "online_retail" if arguments.data else SIMULATED_SHOP
    titles = titles_of(dataset, arguments.data)
    files = read_files(packaged_folder(), UPSTREAM_SHA256)
    exact, rounded = MiniLmEncoder.of(files, is_int8=False), MiniLmEncoder.of(files)
    rows: list[Mapping[str, object]] = [
        {"data": dataset, "method": "float32", **speed(exact, titles)},
        {"data": dataset, "method": "int8", **speed(rounded, titles)}
        | likeness(exact.encode(titles), rounded.encode(titles)),
    ]
    found = rows[1]
    Result(
        benchmark="text_encoder",
        settings={"titles": len(titles), "queries": QUERIES, "rounds": ROUNDS, "threads": 1},
        seeds=[7],
        rows=rows,
        bars=[
            Bar.at_least("titles per second", 500, float(str(found["titles_per_s"]))),
            Bar.at_most("one query, ms", 4, float(str(found["query_ms"]))),
            Bar.at_least("same neighbours", 0.9, float(str(found["same_neighbours"]))),
        ],
    ).write(arguments.json)


if __name__ == "__main__":
    main()
