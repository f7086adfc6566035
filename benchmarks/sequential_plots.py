"""The figure of the sequential benchmark: our rows beside the published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Row = Mapping[str, object]


def draw(name: str, rows: Sequence[Row], folder: Path) -> None:
    """Writes `sequential_NAME.png` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(rows, key=lambda row: float(str(row["recall_at_10"])))
    labels = [str(row["method"]) for row in ordered]
    figure, panels = plt.subplots(1, 2, figsize=(11, 0.35 * len(rows) + 1.5), sharey=True)
    for panel, measure, title in zip(panels, ("recall_at_10", "ndcg_at_10"), ("Recall@10", "NDCG@10"), strict=True):
        values = [float(str(row[measure])) for row in ordered]
        spreads = [float(str(row.get(f"{measure}_spread", 0))) for row in ordered]
        colours = ["lightgrey" if "published" in label else "tab:blue" for label in labels]
        panel.barh(labels, values, xerr=spreads, color=colours)
        panel.set(title=f"{name}: {title}")
        panel.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / f"sequential_{name}.png", dpi=110)
    plt.close(figure)
