"""Time ranges of the tables that the adapters read."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from headrace.datasets.times import us


def between(frame: pl.DataFrame, column: str, start: datetime | None, end: datetime | None) -> pl.DataFrame:
    """Rows with start <= `column` (Unix µs) < end."""
    if start is not None:
        frame = frame.filter(pl.col(column) >= us(start))
    if end is not None:
        frame = frame.filter(pl.col(column) < us(end))
    return frame
