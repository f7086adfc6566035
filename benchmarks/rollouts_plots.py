"""Figures of the rollouts benchmark: the bounds of a few canaries over days, and when canaries were rolled back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.rollouts_runs import POLICY, Held

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(traced: Sequence[Held], hours: Mapping[float, Sequence[float | None]], days: int, folder: Path) -> None:
    """Writes `rollouts_bounds.png` and `rollouts_when.png` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _draw_bounds(traced, folder / "rollouts_bounds.png")
    _draw_when(hours, days, folder / "rollouts_when.png")


def _draw_bounds(traced: Sequence[Held], path: Path) -> None:
    figure, panels = plt.subplots(1, len(traced), figsize=(4.2 * len(traced), 3.8), sharey=True, squeeze=False)
    for panel, one in zip(panels[0], traced, strict=True):
        hour, middle, lower, upper = (np.array(column) for column in zip(*one.path, strict=True))
        known = lower > -0.99
        panel.fill_between(
            hour[known] / 24, lower[known], upper[known], alpha=0.25, label="bounds that hold at every look"
        )
        panel.plot(hour[known] / 24, middle[known], label="difference")
        panel.axhline(one.change, color="black", linestyle=":", label="truth")
        panel.axhline(-POLICY.margins[-1], color="grey", linestyle="--", linewidth=0.8, label="margin")
        if one.rolled_back_hour is not None:
            panel.axvline(one.rolled_back_hour / 24, color="red", label="rolled back")
        panel.set(title=f"true clicks {one.change:+.0%}", xlabel="days", ylim=(-0.6, 0.6))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("clicks per visit, relative")
    handles, labels = panels[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_when(hours: Mapping[float, Sequence[float | None]], days: int, path: Path) -> None:
    figure, panel = plt.subplots(figsize=(6.5, 4))
    looks = np.arange(0, 24 * days + 1)
    for change, found in hours.items():
        at = np.array([np.inf if hour is None else hour for hour in found])
        panel.plot(looks / 24, (at[:, None] <= looks).mean(axis=0), label=f"true clicks {change:+.0%}")
    for day, share in ((2, 0.98), (6, 0.90)):
        panel.plot([day], [share], "k^", markersize=6)
    panel.set(xlabel="days", ylabel="share of canaries rolled back", ylim=(-0.02, 1.02))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
