"""A year of a grocer's loyalty cards (Complete Journey, sampled): purchases with promotions, products by department.

The purchases are a random twentieth of the rows: baskets and histories are thinner than they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl

from headrace.datasets.batching import batches
from headrace.datasets.columns import between
from headrace.datasets.source import ProductUpdate, Span
from headrace.datasets.times import at, timestamp
from headrace.v1.common_pb2 import CHANNEL_STORE, Product, ProductDetail, UserEvent

_CATEGORY = ("department", "product_category", "product_type")


class Dunnhumby:
    """`folder` holds transactions_sample, promotions_sample and products."""

    name = "dunnhumby"
    is_simulated = False
    licence = "Complete Journey 2.0 by 84.51: CC0 as stated by its R package"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def span(self) -> Span:
        first, last = (
            self._lines().select(pl.col("time_us").min().alias("a"), pl.col("time_us").max().alias("b")).row(0)
        )
        return Span(at(first), at(last) + timedelta(seconds=1))

    def products(self) -> Iterator[list[Product]]:
        """The shop's own brand is "Private", every maker's is "National" with the maker's number."""
        columns = ("product_id", "manufacturer_id", "brand", *_CATEGORY, "package_size")
        rows = pl.read_parquet(self._folder / "products.parquet").select(
            pl.col(name).cast(pl.String) for name in columns
        )
        return batches(_product(*row) for row in rows.iter_rows())

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        return iter(())

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        """Labels tell the store, the discount, and where the product stood or was advertised that week."""
        lines = between(self._lines(), "time_us", start, end)
        return batches(_event(*row) for row in lines.iter_rows())

    def _lines(self) -> pl.DataFrame:
        shelf = ("product_id", "store_id", "week")
        promotions = _plain(pl.read_parquet(self._folder / "promotions_sample.parquet")).unique(shelf, keep="first")
        lines = _plain(pl.read_parquet(self._folder / "transactions_sample.parquet")).with_row_index("row")
        return lines.join(promotions, on=shelf, how="left", maintain_order="left").select(
            pl.col("transaction_timestamp").cast(pl.Datetime("us")).to_physical().alias("time_us"),
            "row",
            "household_id",
            "store_id",
            "basket_id",
            "product_id",
            "quantity",
            "sales_value",
            "retail_disc",
            "display_location",
            "mailer_location",
        )


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    # categories of two files do not join
    return frame.with_columns(pl.col(pl.Categorical).cast(pl.String))


def _product(
    product: str,
    maker: str | None,
    brand: str | None,
    department: str | None,
    category: str | None,
    kind: str | None,
    size: str | None,
) -> Product:
    path = [part for part in (department, category, kind) if part]
    title = " ".join(part for part in (kind or category or department, size) if part)
    return Product(
        id=product,
        title=title or f"product {product}",
        brands=["Private"] if brand == "Private" else [f"National {maker}"] if maker else [],
        categories=[" > ".join(path)] if path else [],
        attributes={"package size": size} if size else {},
    )


def _event(
    time_us: int,
    row: int,
    household: str,
    store: str,
    basket: str,
    product: str,
    quantity: float,
    paid: float,
    discount: float,
    display: str | None,
    mailer: str | None,
) -> UserEvent:
    # weighed goods have a quantity of 0 (one) or of thousands (grams)
    units = max(int(quantity), 1)
    labels = {"store": store, "discount": f"{discount:.2f}", "display": display, "mailer": mailer}
    return UserEvent(
        event_id=f"dunnhumby/{row}",
        event_type="purchase-complete",
        user_id=household,
        event_time=timestamp(time_us),
        product_details=[ProductDetail(product_id=product, quantity=units, price=paid / units)],
        channel=CHANNEL_STORE,
        session_id=basket,
        transaction_id=basket,
        labels={name: value for name, value in labels.items() if value is not None},
    )
