"""Figures of the continual benchmark: quality by period beside the published methods, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Row = Mapping[str, object]

_METHODS = ("headrace", "replay", "counts", "finetune", "static", "retrain_blended")
_RIVALS = (("ADER", "--"), ("Joint", ":"))


def draw(name: str, rows: Sequence[Row], published: Mapping[str, Sequence[float]], folder: Path) -> None:
    """Writes `continual_NAME_quality.png` and `continual_NAME_cost.png` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _draw_quality(name, rows, published, folder / f"continual_{name}_quality.png")
    _draw_cost(name, rows, folder / f"continual_{name}_cost.png")


def _draw_quality(name: str, rows: Sequence[Row], published: Mapping[str, Sequence[float]], path: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.5))
    for panel, measure, label in zip(panels, ("recall_at_20", "mrr_at_20"), ("Recall@20", "MRR@20"), strict=True):
        last = 0
        for method in _METHODS:
            periods, means = _by_period(rows, method, measure)
            if periods:
                panel.plot(
                    periods, means, linestyle=_line(periods), marker="o", markersize=_size(periods), label=method
                )
                last = max(last, periods[-1])
        for rival, style in _RIVALS:
            values = published[f"{name.upper()}|{label}|{rival}"][:last]
            panel.plot(range(1, len(values) + 1), values, style, color="grey", label=f"{rival} (published)")
        panel.set(xlabel="test period", ylabel=f"{label}, %", title=f"{name}: {label}")
        panel.grid(alpha=0.3)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_cost(name: str, rows: Sequence[Row], path: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    for panel, measure, label in zip(panels, ("train_seconds", "examples"), ("CPU seconds", "examples"), strict=True):
        for method in ("headrace", "retrain"):
            periods, means = _by_period(rows, method, measure)
            if periods:
                panel.plot(
                    periods, means, linestyle=_line(periods), marker="o", markersize=_size(periods), label=method
                )
        panel.set(xlabel="period", ylabel=f"{label} of one update", yscale="log", title=f"{name}: {label}")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _is_whole(periods: Sequence[int]) -> bool:
    return len(periods) == periods[-1] - periods[0] + 1


def _line(periods: Sequence[int]) -> str:
    """Points alone for what was not measured in between."""
    return "-" if _is_whole(periods) else "none"


def _size(periods: Sequence[int]) -> int:
    return 3 if _is_whole(periods) else 6


def _by_period(rows: Sequence[Row], method: str, measure: str) -> tuple[list[int], list[float]]:
    found: dict[int, list[float]] = {}
    for row in rows:
        if row["method"] == method and row["period"]:
            found.setdefault(int(str(row["period"])), []).append(float(str(row[measure])))
    periods = sorted(found)
    return periods, [float(np.mean(found[period])) for period in periods]
