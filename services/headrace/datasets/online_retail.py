"""A UK web shop's 13 months of invoices (UCI Online Retail), a user event for every invoice line.

What the lines become:

- `purchase` → purchase-complete; `cancel` → purchase-cancel with the quantity that came back;
- `stock_adjust` and `bad_debt` are bookkeeping that a careless feed would send as well: they go out as
  purchase-complete with the negative quantity or price that they have, for the door to refuse. (One of the
  three bad debts has a positive price and passes.)
- The event id is the invoice, the minute, the product, the quantity and the price. The 5,270 rows that
  repeat another word for word so have its id, and the door takes them for the repeats that they are.
- A customer is a user_id. A line without one belongs to a visitor of that invoice alone.
- There are no categories or brands: none are made up. A product's price is that of its first sale.
- When a product was listed is not in the data. Listed at its first sale, every new product would be bought the
  moment it is there, and a model would learn just that. So it is listed up to four weeks earlier, by a hash of its
  code: the one made-up fact here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl

from headrace.datasets.batching import batches
from headrace.datasets.columns import between
from headrace.datasets.source import ProductUpdate, Span
from headrace.datasets.times import at, timestamp
from headrace.v1.common_pb2 import CHANNEL_WEB, PriceInfo, Product, ProductDetail, UserEvent

_CURRENCY = "GBP"
_MOST_LEAD_HOURS = 28 * 24
_TYPES = {"cancel": "purchase-cancel"}


class OnlineRetail:
    """`folder` holds events.parquet and items.parquet."""

    name = "online_retail"
    is_simulated = False
    licence = "UCI Online Retail (Chen 2015), CC BY 4.0: free to use and pass on with attribution"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def span(self) -> Span:
        times = self._lines()["time_us"]
        return Span(at(times[0]), at(times[-1]) + timedelta(minutes=1))

    def products(self) -> Iterator[list[Product]]:
        by_listing = sorted(self._catalogue().iter_rows(), key=lambda row: (row[2] - _lead_us(row[0]), row[0]))
        return batches(_product(*row) for row in by_listing)

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        return iter(())

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        lines = between(self._lines(), "time_us", start, end)
        return batches(_event(*row) for row in lines.iter_rows())

    def _lines(self) -> pl.DataFrame:
        return pl.read_parquet(self._folder / "events.parquet").select(
            pl.col("ts").cast(pl.Datetime("us")).to_physical().alias("time_us"),
            "invoice",
            pl.col("event").cast(pl.String),
            pl.col("user").cast(pl.String),
            "item",
            "quantity",
            "price",
            pl.col("country").cast(pl.String),
        )

    def _catalogue(self) -> pl.DataFrame:
        # not items.parquet's median price: that one knows the future
        first_prices = (
            self._lines()
            .filter(pl.col("price") > 0)
            .group_by("item", maintain_order=True)
            .agg(pl.col("price").first(), pl.col("time_us").first().alias("priced_us"))
        )
        items = pl.read_parquet(self._folder / "items.parquet").select(
            "item", "description", pl.col("first_seen").cast(pl.Datetime("us")).to_physical().alias("first_us")
        )
        return items.join(first_prices, on="item", how="left").select("item", "description", "first_us", "price")


def _product(item: str, description: str, first_us: int, price: float | None) -> Product:
    return Product(
        id=item,
        title=description,
        price_info=PriceInfo(currency_code=_CURRENCY, price=price) if price else None,
        publish_time=timestamp(first_us - _lead_us(item)),
    )


def _lead_us(item: str) -> int:
    return zlib.crc32(item.encode()) % _MOST_LEAD_HOURS * 3_600_000_000


def _event(
    time_us: int,
    invoice: str,
    kind: str,
    user: str | None,
    item: str,
    quantity: int,
    price: float,
    country: str,
) -> UserEvent:
    return UserEvent(
        event_id=f"{invoice}/{time_us // 60_000_000}/{item}/{quantity}/{price}",
        event_type=_TYPES.get(kind, "purchase-complete"),
        visitor_id="" if user else f"invoice-{invoice}",
        user_id=user or "",
        event_time=timestamp(time_us),
        product_details=[ProductDetail(product_id=item, quantity=_sent(kind, quantity), price=price)],
        channel=CHANNEL_WEB,
        session_id=invoice,
        # the number of a credit note is that of no order, and which order it is about is not in the data
        transaction_id="" if kind == "cancel" else invoice,
        labels={"country": country},
    )


def _sent(kind: str, quantity: int) -> int:
    return -quantity if kind == "cancel" else quantity
