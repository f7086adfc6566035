"""Requests as they come in, checked with every fault at once, as the domain knows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from headrace.ranker.answering import Asker
from headrace.ranker.exposure import Exposure
from headrace.ranker.filters import Filter
from headrace.ranker.paging import Page, page_of
from headrace.ranker.rank import Ranking
from headrace.ranker.recommend import BESIDE_A_PRODUCT, SERVING_CONFIGS, Recommendation
from headrace.ranker.search import ORDERS, ProductQuery
from headrace.runtime.errors import Faults
from headrace.v1 import common_pb2, ranker_pb2

_DEFAULT_PAGE_SIZE = 20
_MAX_PAGE_SIZE = 500
_MAX_ID_BYTES = 128
_MAX_QUERY_BYTES = 1_000
_MAX_PRODUCTS_ON_PAGE = 100
_MAX_RANKED = 1_000
_MAX_NAMED = 10_000
_MAX_CATEGORY_BYTES = 500
_MAX_OPTIONS = 100


def recommendation(message: ranker_pb2.RecommendRequest, exposure: Exposure) -> Recommendation:
    """A checked recommendation. InvalidRequestError with every fault."""
    faults = Faults()
    asker = _asker(message, exposure, faults)
    faults.check(bool(asker.user_key), "visitor_id", "visitor_id or user_id is required")
    _check_config(message, faults)
    _check_ids(message.product_ids, "product_ids", _MAX_PRODUCTS_ON_PAGE, faults)
    faults.check(message.min_offset >= 0, "min_offset", f"must not be negative, got {message.min_offset}")
    known = message.channel in common_pb2.Channel.values()
    faults.check(known, "channel", f"is no channel, got {message.channel}")
    wanted = _filter(message.filter, faults)
    page_size = _page_size(message, faults)
    faults.raise_if_any()
    return Recommendation(
        serving_config=message.serving_config,
        asker=replace(asker, min_offset=message.min_offset),
        product_ids=tuple(message.product_ids),
        filter=wanted,
        page_size=page_size,
        explain=message.explain,
    )


def product_query(message: ranker_pb2.SearchRequest, exposure: Exposure) -> ProductQuery:
    """A checked search. InvalidRequestError with every fault."""
    faults = Faults()
    asker = _asker(message, exposure, faults)
    size = len(message.query.encode())
    faults.check(size <= _MAX_QUERY_BYTES, "query", f"must be at most {_MAX_QUERY_BYTES} bytes, got {size}")
    wanted = _filter(message.filter, faults)
    says_something = bool(message.query.strip()) or not wanted.is_open
    faults.check(says_something, "query", "must not be empty without a filter")
    order_by = message.order_by or ORDERS[0]
    faults.check(order_by in ORDERS, "order_by", f"must be one of {', '.join(ORDERS)}, got {order_by!r}")
    page_size = _page_size(message, faults)
    key = repr((message.query, wanted, order_by))
    page = _page(message.page_token, key, faults)
    faults.raise_if_any()
    return ProductQuery(
        query=message.query,
        asker=asker,
        filter=wanted,
        page_size=page_size,
        page=page,
        order_by=order_by,
        explain=message.explain,
        key=key,
    )


def ranking(message: ranker_pb2.RankRequest, exposure: Exposure) -> Ranking:
    """A checked ranking of the caller's candidates. InvalidRequestError with every fault."""
    faults = Faults()
    asker = _asker(message, exposure, faults)
    faults.check(len(message.product_ids) > 0, "product_ids", "must name at least one product, got none")
    _check_ids(message.product_ids, "product_ids", _MAX_RANKED, faults)
    repeated = len(set(message.product_ids)) < len(message.product_ids)
    faults.check(not repeated, "product_ids", "must not name a product twice")
    faults.raise_if_any()
    return Ranking(asker, tuple(message.product_ids), message.explain)


def _asker(
    message: ranker_pb2.RecommendRequest | ranker_pb2.SearchRequest | ranker_pb2.RankRequest,
    exposure: Exposure,
    faults: Faults,
) -> Asker:
    """The person when logged in, else the device."""
    for field, value in (("visitor_id", message.visitor_id), ("user_id", message.user_id)):
        size = len(value.encode())
        faults.check(size <= _MAX_ID_BYTES, field, f"must be at most {_MAX_ID_BYTES} bytes, got {size}")
    if message.user_id:
        return Asker(f"u:{message.user_id}", exposure=exposure)
    return Asker(f"v:{message.visitor_id}" if message.visitor_id else "", exposure=exposure)


def _check_config(message: ranker_pb2.RecommendRequest, faults: Faults) -> None:
    config = message.serving_config
    faults.check(
        config in SERVING_CONFIGS, "serving_config", f"must be one of {', '.join(SERVING_CONFIGS)}, got {config!r}"
    )
    if config in BESIDE_A_PRODUCT:
        faults.check(len(message.product_ids) > 0, "product_ids", f"{config} needs at least one product, got none")


def _check_ids(ids: Sequence[str], field: str, most: int, faults: Faults) -> None:
    faults.check(len(ids) <= most, field, f"must name at most {most} products, got {len(ids)}")
    for place, each in enumerate(ids[:most]):
        if not 1 <= len(each.encode()) <= _MAX_ID_BYTES:
            faults.add(f"{field}[{place}]", f"must be 1 to {_MAX_ID_BYTES} bytes, got {len(each.encode())}")


def _page_size(message: ranker_pb2.RecommendRequest | ranker_pb2.SearchRequest, faults: Faults) -> int:
    if not message.HasField("page_size"):
        return _DEFAULT_PAGE_SIZE
    size = message.page_size
    faults.check(1 <= size <= _MAX_PAGE_SIZE, "page_size", f"must be 1 to {_MAX_PAGE_SIZE}, got {size}")
    return size


def _page(token: str, key: str, faults: Faults) -> Page:
    if not token:
        return Page()
    try:
        return page_of(token, key)
    except ValueError as error:
        faults.add("page_token", str(error))
        return Page()


def _filter(message: common_pb2.ProductFilter, faults: Faults) -> Filter:
    lowest = message.min_price if message.HasField("min_price") else None
    highest = message.max_price if message.HasField("max_price") else None
    _check_prices(lowest, highest, faults)
    for field, texts, longest in (
        ("categories", message.categories, _MAX_CATEGORY_BYTES),
        ("brands", message.brands, _MAX_ID_BYTES),
    ):
        _check_options(f"filter.{field}", tuple(texts), longest, faults)
    _check_ids(message.allow_product_ids, "filter.allow_product_ids", _MAX_NAMED, faults)
    _check_ids(message.deny_product_ids, "filter.deny_product_ids", _MAX_NAMED, faults)
    return Filter(
        categories=tuple(message.categories),
        brands=tuple(message.brands),
        min_price=lowest,
        max_price=highest,
        include_unavailable=message.include_unavailable,
        allow_ids=tuple(message.allow_product_ids),
        deny_ids=tuple(message.deny_product_ids),
    )


def _check_prices(lowest: float | None, highest: float | None, faults: Faults) -> None:
    finite = True
    for field, price in (("min_price", lowest), ("max_price", highest)):
        if price is not None:
            finite &= faults.check(math.isfinite(price), f"filter.{field}", f"must be finite, got {price}")
    if finite and lowest is not None and highest is not None:
        faults.check(lowest <= highest, "filter.max_price", f"must be at least min_price {lowest}, got {highest}")


def _check_options(field: str, texts: tuple[str, ...], longest: int, faults: Faults) -> None:
    faults.check(len(texts) <= _MAX_OPTIONS, field, f"must name at most {_MAX_OPTIONS}, got {len(texts)}")
    for place, text in enumerate(texts[:_MAX_OPTIONS]):
        if not text.strip() or len(text.encode()) > longest:
            faults.add(f"{field}[{place}]", f"must be 1 to {longest} bytes, got {len(text.encode())}")
