"""What a row can become, and the fields that a mapping may give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from headrace.v1.common_pb2 import (
    Availability,
    Channel,
    DatedFact,
    EntityKind,
    PriceInfo,
    Product,
    ProductDetail,
    UserEvent,
)

KINDS = ("events", "products", "facts")


class Sort(Enum):
    """What a field holds."""

    TEXT = "text"
    TEXTS = "texts"
    NUMBER = "number"
    WHOLE = "whole number"
    TIME = "time"
    FLAG = "true or false"
    CHOICE = "one of several words"


@dataclass(frozen=True, slots=True)
class Target:
    """One field. `most` bounds a whole number; `choices` are the words of a choice with their numbers."""

    sort: Sort
    most: int = 0
    choices: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """All fields of a kind; of each of `required` at least one must be mapped. `extra` names the free facts."""

    fields: Mapping[str, Target]
    required: tuple[tuple[str, ...], ...]
    extra: str


def _choices(names: Mapping[str, int], prefix: str) -> Target:
    words = {name.removeprefix(prefix).lower().replace("_", "-"): number for name, number in names.items()}
    return Target(Sort.CHOICE, choices={word: number for word, number in words.items() if number})


_TEXT, _TEXTS, _NUMBER = Target(Sort.TEXT), Target(Sort.TEXTS), Target(Sort.NUMBER)
_TIME, _COUNT = Target(Sort.TIME), Target(Sort.WHOLE, 2**31 - 1)

FORMS: Mapping[str, Form] = {
    "events": Form(
        {
            "event_type": _TEXT,
            "visitor_id": _TEXT,
            "user_id": _TEXT,
            "event_time": _TIME,
            "product_id": _TEXT,
            "quantity": _COUNT,
            "price": _NUMBER,
            "search_query": _TEXT,
            "page_categories": _TEXTS,
            "channel": _choices(dict(Channel.items()), "CHANNEL_"),
            "session_id": _TEXT,
            "transaction_id": _TEXT,
            "attribution_token": _TEXT,
            "event_id": _TEXT,
        },
        (("event_type",), ("event_time",), ("visitor_id", "user_id")),
        "labels",
    ),
    "products": Form(
        {
            "id": _TEXT,
            "title": _TEXT,
            "description": _TEXT,
            "brands": _TEXTS,
            "categories": _TEXTS,
            "price": _NUMBER,
            "original_price": _NUMBER,
            "cost": _NUMBER,
            "currency_code": _TEXT,
            "availability": _choices(dict(Availability.items()), "AVAILABILITY_"),
            "available_quantity": _COUNT,
            "image_uri": _TEXT,
            "uri": _TEXT,
            "publish_time": _TIME,
            "expire_time": _TIME,
        },
        (("id",), ("title",)),
        "attributes",
    ),
    "facts": Form(
        {
            "entity_kind": _choices(dict(EntityKind.items()), "ENTITY_KIND_"),
            "entity_id": _TEXT,
            "name": _TEXT,
            "text": _TEXT,
            "number": _NUMBER,
            "valid_from": _TIME,
            "valid_until": _TIME,
            "store_id": _TEXT,
            "campaign_id": _TEXT,
            "source": _TEXT,
            "fact_id": _TEXT,
            "revision": Target(Sort.WHOLE, 2**63 - 1),
            "deleted": Target(Sort.FLAG),
        },
        (("entity_kind",), ("entity_id",), ("name",)),
        "",
    ),
}

Message = UserEvent | Product | DatedFact
_PRODUCT_FIELDS = ("product_id", "quantity", "price")
_PRICE_FIELDS = ("price", "original_price", "cost", "currency_code")


def message_of(kind: str, values: dict[str, Any], extra: dict[str, str]) -> Message:
    """The message of a row's values; fields without one are left out."""
    if kind == "events":
        detail = _taken(values, _PRODUCT_FIELDS)
        return UserEvent(product_details=[ProductDetail(**detail)] if detail else [], labels=extra, **values)
    if kind == "products":
        price = _taken(values, _PRICE_FIELDS)
        return Product(price_info=PriceInfo(**price) if price else None, attributes=extra, **values)
    return DatedFact(**values)


def _taken(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values.pop(name) for name in names if name in values}
