"""How much the feature benchmark reads, counts and joins, and which features."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.model.items import POPULARITY_FEATURES, WINDOW_FEATURES

FEATURES = ("price", "discount", *(f"item_windows:{name}" for name in WINDOW_FEATURES), *POPULARITY_FEATURES)


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    products: int
    users: int
    events: int
    reads: int
    feast_reads: int
    counted: int
    counted_one_by_one: int
    join_rows: int
    join_labels: int
    rounds: int


FULL = Scale(10_000, 2_000, 40_000, 3_000, 150, 4_000_000, 60_000, 1_000_000, 100_000, 3)
QUICK = Scale(1_000, 200, 4_000, 300, 30, 400_000, 10_000, 100_000, 10_000, 1)
