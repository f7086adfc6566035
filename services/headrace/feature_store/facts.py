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
    # the device that a person was logged in on; empty where that is not known
    device_key: str = ""


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


# (kind, id); the kinds are EntityKind's numbers
Entity: TypeAlias = tuple[int, str]
PRODUCT, USER, VISITOR, CATEGORY, BRAND, STORE = range(1, 7)


class DatedFact(NamedTuple):
    """What is said to be true of an entity from one moment to another. `document` is the message as it was sent."""

    offset: int
    entity: Entity
    ordinal: int | None
    fact_id: str
    name: str
    store_id: str
    campaign_id: str
    number: float
    from_us: int
    until_us: int
    revision: int
    deleted: bool
    document: bytes


class IdentityFact(NamedTuple):
    """Somebody joined a device to a person, or took the two apart."""

    offset: int
    device_key: str
    user_key: str
    is_joined: bool


class Tick(NamedTuple):
    """A record that says nothing about users or items."""

    offset: int


Fact: TypeAlias = UserAct | ProductFact | DatedFact | IdentityFact | Tick
