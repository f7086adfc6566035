"""Means and spreads over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Row = dict[str, object]

_NOT_MEASURED = ("seed", "period")


def number(row: Row, name: str) -> float:
    return float(str(row[name]))


def means(rows: Sequence[Row]) -> dict[str, float]:
    """The mean of every number that all rows have."""
    names = [name for name, value in rows[0].items() if isinstance(value, (int, float)) and name not in _NOT_MEASURED]
    return {name: float(np.mean([number(row, name) for row in rows])) for name in names}


def spread_over_seeds(method: str, rows: Sequence[Row]) -> Row:
    """A row of means; `NAME_spread` is the standard deviation over seeds, for the main measures."""
    found = means(rows)
    summary: Row = {"method": method, "seeds": len(rows)} | {name: round(value, 5) for name, value in found.items()}
    for name in found:
        if name.startswith(("recall", "ndcg", "mrr", "cold_recall")):
            summary[f"{name}_spread"] = round(float(np.std([number(row, name) for row in rows])), 5)
    return summary
