"""What a product must be to be taken: the limits that the contract states, all faults reported together."""

from __future__ import annotations

import math
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.ingest.limits import ID_BYTES, MAX_PRICE, Found, Violation, all_over, bad_time, labels_over, over, shown
from headrace.v1.common_pb2 import Availability, PriceInfo, Product

_AVAILABILITIES = frozenset(Availability.values())


def product_violations(product: Product) -> list[Violation]:
    """Everything that is wrong with a product; empty when it may be taken."""
    return [
        Violation(reason, field, description) for reason, rule in PRODUCT_RULES for field, description in rule(product)
    ]


def _product_missing(product: Product) -> Found:
    if not product.id:
        yield "id", "must be given"
    if not product.title:
        yield "title", "must be given"


def _product_unknown_type(product: Product) -> Found:
    if product.availability not in _AVAILABILITIES:
        yield "availability", f"must be one of {', '.join(Availability.keys())}, got {product.availability}"
    currency = product.price_info.currency_code
    if currency and not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
        yield "price_info.currency_code", f"must be three letters, got {shown(currency)}"


def _product_time(product: Product) -> Found:
    for field in ("publish_time", "expire_time"):
        if product.HasField(field):
            given: Timestamp = getattr(product, field)
            yield from bad_time(field, given)


def _product_price(product: Product) -> Found:
    if not product.HasField("price_info"):
        return
    info = product.price_info
    for field in ("price", "original_price", "cost"):
        amount: float = getattr(info, field)
        if not 0 <= amount <= MAX_PRICE:
            yield f"price_info.{field}", f"must be 0 .. 1e9, got {amount}"
    yield from _reduction(info)


def _reduction(info: PriceInfo) -> Found:
    if info.original_price and info.original_price < info.price and math.isfinite(info.price):
        yield "price_info.original_price", f"must be 0 or at least the price {info.price}, got {info.original_price}"


def _product_quantity(product: Product) -> Found:
    if product.available_quantity < 0:
        yield "available_quantity", f"must be at least 0, got {product.available_quantity}"


def _product_too_long(product: Product) -> Found:
    yield from over(ID_BYTES, "id", product.id)
    yield from over(1_000, "title", product.title)
    yield from over(5_000, "description", product.description)
    yield from all_over(30, 128, "brands", product.brands)
    yield from all_over(50, 500, "categories", product.categories)
    if product.attributes:
        yield from labels_over(100, "attributes", product.attributes.items())


ProductRule = Callable[[Product], Found]
PRODUCT_RULES: tuple[tuple[str, ProductRule], ...] = (
    ("missing", _product_missing),
    ("unknown-type", _product_unknown_type),
    ("time", _product_time),
    ("price", _product_price),
    ("quantity", _product_quantity),
    ("too-long", _product_too_long),
)
