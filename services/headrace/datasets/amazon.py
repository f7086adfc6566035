"""Amazon's reviews of 2014 (Beauty, Sports): products with short texts, and who bought what in which order.

Times are synthetic: the files hold only each user's own order, so all first purchases happen on the first day,
all second ones on the second. What one user did says nothing here about when another one did it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl

from headrace.datasets.batching import batches
from headrace.datasets.columns import between
from headrace.datasets.source import ProductUpdate, Span
from headrace.datasets.times import timestamp, us
from headrace.v1.common_pb2 import CHANNEL_WEB, Product, ProductDetail, UserEvent

_START = datetime(2013, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000


class Amazon:
    """`part` is beauty or sports."""

    is_simulated = False
    licence = "no licence stated; upstream UCSD/McAuley Amazon 2014: research only"

    def __init__(self, folder: Path, part: str) -> None:
        self.name = f"amazon_{part}"
        self._folder = folder
        self._part = part

    @cached_property
    def span(self) -> Span:
        days = self._read("interactions").select(pl.col("pos").max()).item() + 1
        return Span(_START, _START + timedelta(days=days))

    def products(self) -> Iterator[list[Product]]:
        """The title is a few words taken from the real one; attributes are anonymous numbers of brand and category."""
        rows = self._read("items").select(pl.col("item").cast(pl.String), "asin", "text", "attributes")
        return batches(_product(*row) for row in rows.iter_rows())

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        return iter(())

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        order = self._read("interactions").sort("pos", "user")
        place, count = pl.int_range(pl.len()).over("pos"), pl.len().over("pos")
        rows = order.select(
            (us(_START) + pl.col("pos").cast(pl.Int64) * _DAY_US + place * _DAY_US // count).alias("time_us"),
            "pos",
            pl.col("user").cast(pl.String),
            pl.col("item").cast(pl.String),
        )
        return batches(_purchase(self.name, *row) for row in between(rows, "time_us", start, end).iter_rows())

    def _read(self, table: str) -> pl.DataFrame:
        return pl.read_parquet(self._folder / f"{self._part}_{table}.parquet")


def _product(item: str, asin: str, text: str, attributes: list[int]) -> Product:
    return Product(
        id=item, title=text, attributes={"asin": asin} | {f"attribute-{number}": "yes" for number in attributes}
    )


def _purchase(source: str, time_us: int, position: int, user: str, item: str) -> UserEvent:
    return UserEvent(
        event_id=f"{source}/{user}/{position}",
        event_type="purchase-complete",
        user_id=user,
        event_time=timestamp(time_us),
        product_details=[ProductDetail(product_id=item, quantity=1)],
        channel=CHANNEL_WEB,
    )
