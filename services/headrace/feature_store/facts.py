"""What the fold takes in: records of the log in the words of the domain."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from headrace.model.events import EventCode


class UserAct(NamedTuple):
    """Something that a person did. `ordinals` are distinct: an event counts once for an item."""

    offset: int
    event_type: str
    code: EventCode
    user_key: str
    time_us: int
    channel: int
    ordinals: list[int]
    is_cancel: bool


class ProductFact(NamedTuple):
    """A product as it stands from now on; prices 0 when unknown, times None when open."""

    offset: int
    ordinal: int
    time_us: int
    deleted: bool
    price: float
    original_price: float
    available: bool
    publish_us: int | None
    expire_us: int | None
    category: str
    brand: str
    title: str
    document: bytes
    product_id: str = ""


class Tick(NamedTuple):
    """A record that says nothing about users or items."""

    offset: int


Fact: TypeAlias = UserAct | ProductFact | Tick
