"""A small shop: people who stay within one of two groups of items."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.trainer.records import Events, Product, Slice
from headrace.trainer.settings import TrainerSettings

GROUP = 10


class Shop:
    """Makes slices of a shop whose rule is known: who begins in a group stays in it."""

    def __init__(self, group: int = GROUP) -> None:
        self.group = group
        self.items = 2 * group

    def products(self, offset: int = 1) -> tuple[Product, ...]:
        names = ("garden chair", "kitchen mug")
        return tuple(
            Product(
                offset + at, at, f"{names[at // self.group]} number{at}", "", names[at // self.group], 5.0 + at, False
            )
            for at in range(self.items)
        )

    def visits(self, number: int, people: int, length: int = 6, after: int = 0) -> Slice:
        """`people` new persons with `length` events each, in one slice."""
        rng = np.random.default_rng(number)
        users = np.repeat(np.arange(people), length)
        groups = np.repeat(rng.integers(0, 2, people), length)
        ordinals = (groups * self.group + rng.integers(0, self.group, people * length)).astype(np.uint32)
        times = np.int64(1_300_000_000_000_000) + np.arange(people * length) * 1_000_000 + number * 10**10
        events = Events(
            users,
            ordinals,
            np.full(len(users), 1, np.uint8),
            times,
            np.ones(len(users), np.uint8),
            tuple(f"u:{number}-{person}" for person in range(people)),
            ("",) * len(users),
        )
        return Slice(after, after + len(users), events)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def large_shop() -> Shop:
    """So many items that twenty of them are few."""
    return Shop(group=25)


@pytest.fixture
def settings() -> TrainerSettings:
    return TrainerSettings(
        dimension=16,
        max_length=10,
        text_width=16,
        uniform_negatives=32,
        popular_negatives=32,
        row_rate=0.02,
    )
