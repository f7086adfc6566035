"""The soak's load is the whole shop in order, and its recount finds a count that is wrong."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
import pytest

from benchmarks.soak_load import Days
from benchmarks.soak_recount import Comparison
from headrace.datasets.simulated_shop import ShopSettings, SimulatedShop

SETTINGS = ShopSettings(seed=3, users=30, products=60, visits_a_day=2.0, days=2)
NOW_US = 100 * 3_600_000_000
WINDOWS = ("5m", "1h", "1d", "7d")


def test_every_event_comes_once_in_the_shops_order_in_the_step_of_its_time() -> None:
    steps = list(Days(SETTINGS, step_hours=3).steps())
    assert [step.end_hour for step in steps] == list(range(3, 49, 3))
    sent = [event.event_id for step in steps for event in step.events]
    assert sent == [event.event_id for batch in SimulatedShop(SETTINGS).events() for event in batch]


def test_a_product_that_goes_is_back_a_step_later() -> None:
    steps = list(Days(SETTINGS, step_hours=3).steps())
    for before, after in pairwise(steps):
        assert before.deleted in {product.id for product in after.products}


@pytest.fixture
def comparison() -> Comparison:
    """Two views of an item, half an hour and two days ago."""
    times_us = [NOW_US - 1_800_000_000, NOW_US - 48 * 3_600_000_000]
    columns = {
        "offset": [2, 1],
        "user_key": ["v:a", "v:a"],
        "ordinal": [7, 7],
        "type": ["detail-page-view"] * 2,
        "time_us": times_us,
        "event_id": ["b", "a"],
        "is_cancelled": [False, False],
    }
    return Comparison(pl.DataFrame(columns), NOW_US)


def served(**views: int) -> dict[object, dict[str, float]]:
    counts = {f"{name}_{window}": 0.0 for name in ("views", "carts", "purchases") for window in WINDOWS}
    return {7: counts | {f"views_{window}": float(count) for window, count in views.items()}}


def test_counts_that_the_log_bears_out_are_right(comparison: Comparison) -> None:
    comparison.add("ordinal", served(**{"5m": 0, "1h": 1, "1d": 1, "7d": 2}))
    assert (comparison.count, comparison.wrong) == (12, [])


def test_a_count_that_drifted_is_named(comparison: Comparison) -> None:
    comparison.add("ordinal", served(**{"5m": 0, "1h": 1, "1d": 2, "7d": 2}))
    assert comparison.wrong == ["ordinal 7 views_1d: 2 served, 1 to 1 in the log"]
