"""Labels joined with features as of their time, by ours and by Feast's file store, from the same Parquet files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.feast_stores import FeastStore
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
    labels, rows = join_tables(scale, seed)
    (folder / "join").mkdir()
    paths = folder / "join" / "labels.parquet", folder / "join" / "rows.parquet"
    for table, path in zip((labels, rows), paths, strict=True):
        table.write_parquet(path)
    feast = FeastStore(
        folder / "feast-join", {"type": "sqlite", "path": str(folder / "none.db")}, {"user": rows.to_pandas()}
    )
    frame = labels.to_pandas()
    seconds: dict[str, list[float]] = {"headrace": [], "feast": []}
    for _ in range(scale.rounds):
        begun = time.perf_counter()
        ours = join_as_of(pl.read_parquet(paths[0]), pl.read_parquet(paths[1]), "user_id", "event_timestamp")
        seconds["headrace"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        theirs = feast.historical("user", frame)
        seconds["feast"].append(time.perf_counter() - begun)
    _check_joined(ours, theirs)
    return {
        "headrace": Joined(seconds["headrace"], len(ours), ours["f0"].null_count()),
        "feast": Joined(seconds["feast"], len(theirs), int(theirs["f0"].isna().sum())),
    }


def _check_joined(ours: pl.DataFrame, theirs: pd.DataFrame) -> None:
    """Where Feast kept a label with features, they are ours."""
    kept = theirs.dropna(subset=["f0"]).sort_values("label")
    mine = ours.to_pandas().set_index("label").loc[kept["label"]]
    ties = (mine["f0"].to_numpy() != kept["f0"].to_numpy()).mean()
    # of rows of one person and one second either takes one
    if ties > 0.001:
        raise RuntimeError(f"{ties:.2%} of the joined labels differ")
