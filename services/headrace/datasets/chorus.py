"""Electronics with full texts, brands, prices and attributes (Chorus, from Icecat): a catalogue without events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from headrace.datasets.batching import batches
from headrace.datasets.source import ProductUpdate, Span
from headrace.datasets.times import timestamp, us
from headrace.v1.common_pb2 import PriceInfo, Product, UserEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ATTRIBUTES = 100  # the contract's limits
_ATTRIBUTE_BYTES = 256


class Chorus:
    """`folder` holds products.parquet."""

    name = "chorus"
    is_simulated = False
    licence = "Icecat Open Content License (products), Apache-2.0 (the repository)"
    span = Span(_EPOCH, _EPOCH)

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def products(self) -> Iterator[list[Product]]:
        """Attributes beyond the contract's 100, or longer than 256 bytes, are left out."""
        rows = (
            pl.read_parquet(self._folder / "products.parquet")
            .sort("date_released", "docid", nulls_last=False)
            .select(
                "docid",
                "title",
                "short_description",
                "supplier",
                "price_cents",
                "date_released",
                "image_url",
                "attributes_json",
            )
        )
        return batches(_product(*row) for row in rows.iter_rows())

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        return iter(())

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        return iter(())


def _product(
    docid: str,
    title: str,
    description: str | None,
    supplier: str | None,
    cents: float | None,
    released: datetime | None,
    image: str | None,
    attributes: str | None,
) -> Product:
    return Product(
        id=docid,
        title=title,
        description=description or "",
        brands=[supplier] if supplier else [],
        price_info=PriceInfo(currency_code="USD", price=cents / 100) if cents else None,
        attributes=_attributes(attributes or "{}"),
        image_uri=image or "",
        publish_time=timestamp(us(released)) if released else None,
    )


def _attributes(stored: str) -> dict[str, str]:
    values = {
        name.split("_", 2)[-1].replace("_", " ").strip(): str(value) for name, value in json.loads(stored).items()
    }
    fitting = [(n, v) for n, v in values.items() if n and max(len(n.encode()), len(v.encode())) <= _ATTRIBUTE_BYTES]
    return dict(fitting[:_ATTRIBUTES])


def _words(name: str) -> str:
    # attr_t_printing_colours -> printing colours
    return name.split("_", 2)[-1].replace("_", " ").strip()
