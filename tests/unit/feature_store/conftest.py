"""Facts of a small shop, made from a few numbers."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from headrace.feature_store.facts import Fact, ProductFact, UserAct
from headrace.model.events import EVENT_CODES, EventCode

MINUTE_US = 60_000_000
START_US = 1_700_000_000_000_000


def _act(
    offset: int,
    minutes: float,
    ordinals: list[int],
    event_type: str = "purchase-complete",
    user: str = "u:ann",
) -> UserAct:
    code = EVENT_CODES.get(event_type, EventCode.NONE)
    time_us = START_US + int(minutes * MINUTE_US)
    return UserAct(offset, event_type, code, user, time_us, 1, ordinals, event_type == "purchase-cancel")


def _product(offset: int, minutes: float, ordinal: int, price: float = 10.0, deleted: bool = False) -> ProductFact:
    time_us = START_US + int(minutes * MINUTE_US)
    category = f"Shelf {ordinal % 3}"
    document = f"document {ordinal} {price}".encode()
    return ProductFact(
        offset,
        ordinal,
        time_us,
        deleted,
        price,
        0.0,
        True,
        None,
        None,
        category,
        f"Brand {ordinal % 2}",
        f"Thing {ordinal % 7} at {price}",
        document,
    )


def _facts(seed: int, count: int, first_offset: int = 1, start_minutes: float = 0.0) -> list[Fact]:
    """A history of a shop: products, views, carts, purchases, cancellations, late events, searches."""
    chance = random.Random(seed)
    kinds = ["detail-page-view", "add-to-cart", "purchase-complete", "purchase-cancel", "remove-from-cart", "search"]
    facts: list[Fact] = []
    minutes = start_minutes
    for offset in range(first_offset, first_offset + count):
        minutes += chance.choice([0.0, 0.2, 3.0, 12.0, 45.0, 700.0])
        if chance.random() < 0.2:
            facts.append(_product(offset, minutes, chance.randrange(30), chance.choice([5.0, 10.0, 20.0])))
            continue
        kind = chance.choices(kinds, [5, 2, 4, 1, 1, 1])[0]
        ordinals = [] if kind == "search" else chance.sample(range(30), chance.choice([1, 1, 2, 5, 25]))
        late = chance.choice([0.0, 0.0, 0.0, 2.0, 90.0])
        facts.append(_act(offset, minutes - late, ordinals, kind, f"u:{chance.randrange(4)}"))
    return facts


@pytest.fixture
def act() -> Callable[..., UserAct]:
    return _act


@pytest.fixture
def product() -> Callable[..., ProductFact]:
    return _product


@pytest.fixture(scope="session")
def shop_facts() -> Callable[..., list[Fact]]:
    return _facts
