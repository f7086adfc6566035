"""Labels joined with features as of their time, by ours and by Feast's file store, from the same Parquet files."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.features_scale import FEATURES, Scale
from headrace.datasets.as_of_join import join_as_of


def join_tables(scale: Scale, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Labels and rows of 20 features; some labels are of persons, or times, that no row is before."""
    chance = np.random.default_rng(seed)
    users = scale.join_rows // 20

    def keys(count: int, most: int) -> dict[str, object]:
        seconds = chance.integers(0, 90 * 86_400, count)
        return {"user_id": chance.integers(0, most, count), "event_timestamp": pl.Series(seconds) * 1_000_000}

    values = {f"f{place}": chance.random(scale.join_rows, dtype=np.float32) for place in range(len(FEATURES))}
    rows = pl.DataFrame({**keys(scale.join_rows, users), **values})
    labels = pl.DataFrame(keys(scale.join_labels, users + users // 50)).with_row_index("label")
    as_time = pl.col("event_timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return labels.with_columns(as_time), rows.with_columns(as_time)


@dataclass(frozen=True)
class Joined:
    """Seconds a join took by round, rows that came out, labels that found no features."""

    seconds: Sequence[float]
    rows: int
    empty: int


def time_joins(folder: Path, scale: Scale, seed: int) -> dict[str, Joined]:
    """Each in a process of its own that lives through all rounds, in turns."""
    labels, rows = join_tables(scale, seed)
    (folder / "join").mkdir()
    labels.write_parquet(folder / "join" / "labels.parquet")
    rows.write_parquet(folder / "join" / "rows.parquet")
    seconds: dict[str, list[float]] = {name: [] for name in _WAYS}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for name in _WAYS}
        # short ones, and the first of each fills caches
        for _ in range(scale.rounds + 2):
            for name, pool in pools.items():
                seconds[name].append(pool.submit(_WAYS[name], folder / "join").result())
    joined = {name: pl.read_parquet(folder / "join" / f"{name}.parquet") for name in _WAYS}
    _check_joined(joined["headrace"], joined["feast"])
    return {name: Joined(seconds[name], len(table), table["f0"].null_count()) for name, table in joined.items()}


def _ours(folder: Path) -> float:
    begun = time.perf_counter()
    labels, rows = (pl.read_parquet(folder / f"{name}.parquet") for name in ("labels", "rows"))
    joined, _ = join_as_of(labels, rows, "user_id", "event_timestamp")
    seconds = time.perf_counter() - begun
    joined.write_parquet(folder / "headrace.parquet")
    return seconds


def _feast(folder: Path) -> float:
    # not in the other process: what it brings along is not light
    from benchmarks.feast_stores import FeastStore

    warnings.filterwarnings("ignore")
    rows, labels = (pd.read_parquet(folder / f"{name}.parquet") for name in ("rows", "labels"))
    with tempfile.TemporaryDirectory(dir=folder) as own:
        store = FeastStore(Path(own) / "store", {"type": "sqlite", "path": f"{own}/none.db"}, {"user": rows})
        begun = time.perf_counter()
        joined = store.historical("user", labels)
        seconds = time.perf_counter() - begun
    joined.to_parquet(folder / "feast.parquet")
    return seconds


_WAYS = {"headrace": _ours, "feast": _feast}


def _check_joined(ours: pl.DataFrame, theirs: pl.DataFrame) -> None:
    """Where Feast kept a label with features, they are ours."""
    both = theirs.drop_nulls("f0").join(ours, on="label", suffix="_ours")
    differ = (both["f0"] != both["f0_ours"]).mean()
    # of rows of one person and one second either takes one
    if not len(both) or float(str(differ)) > 0.001:
        raise RuntimeError(f"{differ:.2%} of {len(both)} joined labels differ")
