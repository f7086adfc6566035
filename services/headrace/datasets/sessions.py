"""Click sessions in their true order, at made-up times.

The published files keep the order of the clicks and drop their times. Times here are synthetic: each period
has about the length that it had, and its clicks are spread evenly over it. There are no product texts, so no products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from headrace.datasets.batching import batches
from headrace.datasets.columns import between
from headrace.datasets.source import ProductUpdate, Span
from headrace.datasets.times import timestamp, us
from headrace.v1.common_pb2 import CHANNEL_WEB, Product, ProductDetail, UserEvent

_START = datetime(2016, 1, 4, tzinfo=UTC)
_LICENCE = "no licence stated; upstream {}: research only, not to be passed on"


@dataclass(frozen=True, slots=True)
class _Calendar:
    """How long the first period is, and how long every later one."""

    first: timedelta
    later: timedelta
    upstream: str


_CALENDARS = {
    "diginetica": _Calendar(timedelta(weeks=22), timedelta(weeks=1), "CIKM Cup 2016"),
    "yoochoose": _Calendar(timedelta(days=1), timedelta(days=1), "RecSys Challenge 2015 (CC BY-NC-ND 4.0)"),
}


class Clicks:
    """Clicks (row, time_us, session, item) as detail-page-views."""

    is_simulated = False

    def __init__(self, name: str, upstream: str, clicks: pl.DataFrame, end: datetime) -> None:
        self.name = name
        self.licence = _LICENCE.format(upstream)
        self.span = Span(_START, end)
        self._clicks = clicks

    def products(self) -> Iterator[list[Product]]:
        return iter(())

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        return iter(())

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        rows = between(self._clicks, "time_us", start, end).select("row", "time_us", "session", "item")
        return batches(_view(self.name, *row) for row in rows.iter_rows())


class Sessions(Clicks):
    """ADER's DIGINETICA (a long period 0, then weeks) or YOOCHOOSE (days).

    A session that crosses a border between periods is two sessions, as in the publication.
    """

    def __init__(self, folder: Path, name: str) -> None:
        calendar = _CALENDARS[name]
        stored = pl.read_parquet(folder / f"{name}.parquet").with_columns(pl.col("period").cast(pl.Int64))
        first, later = (length // timedelta(microseconds=1) for length in (calendar.first, calendar.later))
        is_first = pl.col("period") == 0
        begin_us = pl.when(is_first).then(0).otherwise(first + (pl.col("period") - 1) * later)
        length_us = pl.when(is_first).then(first).otherwise(later)
        place, count = pl.int_range(pl.len()).over("period"), pl.len().over("period")
        clicks = stored.with_row_index("row").select(
            "row",
            (us(_START) + begin_us + place * length_us // count).alias("time_us"),
            pl.format("{}-{}", "period", "session").alias("session"),
            pl.col("item").cast(pl.String),
        )
        last = stored.select(pl.col("period").max()).item()
        super().__init__(name, calendar.upstream, clicks, _START + calendar.first + last * calendar.later)


class StaticSessions(Clicks):
    """The training sessions of the standard DIGINETICA split, one after the other, spread over a year."""

    def __init__(self, folder: Path) -> None:
        year = timedelta(days=365)
        clicks = (
            pl.read_parquet(folder / "train_sessions.parquet")
            .with_row_index("session")
            .explode("items")
            .with_row_index("row")
            .select(
                "row",
                (us(_START) + pl.col("row").cast(pl.Int64) * (year // timedelta(microseconds=1)) // pl.len()).alias(
                    "time_us"
                ),
                pl.col("session").cast(pl.String),
                pl.col("items").cast(pl.String).alias("item"),
            )
        )
        super().__init__("diginetica_srgnn", _CALENDARS["diginetica"].upstream, clicks, _START + year)


def _view(source: str, row: int, time_us: int, session: str, item: str) -> UserEvent:
    return UserEvent(
        event_id=f"{source}/{row}",
        event_type="detail-page-view",
        visitor_id=f"session-{session}",
        session_id=session,
        event_time=timestamp(time_us),
        product_details=[ProductDetail(product_id=item)],
        channel=CHANNEL_WEB,
    )
