"""How far the values of a feature have moved: the population stability index against a reference period.

The reference's values are cut at their deciles. A value that is a decile itself has a cell of its own, so that a count
which is mostly 0 has one for its zeros. With p and q the shares of the reference and of the recent period in a cell
(half a value added to each cell, so that none is 0):

    PSI = Σ (q − p) · ln(q / p)

Below 0.1 is taken as stable, above 0.25 as moved (Siddiqi, Credit Risk Scorecards, 2006). It is also the sum of the
Kullback-Leibler divergences both ways.
"""

# N rows, F features

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

STABLE, MOVED = 0.1, 0.25
BINS = 10


def stability(reference: NDArray[np.float32], recent: NDArray[np.float32]) -> float:
    """The index of one feature's finite values; 0 where either period has none.

    >>> same = np.arange(1000, dtype=np.float32)
    >>> stability(same, same)
    0.0
    >>> stability(same, same + 500) > MOVED
    True
    """
    if not len(reference) or not len(recent):
        return 0.0
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))
    before, now = _shares(edges, reference), _shares(edges, recent)
    return float(((now - before) * np.log(now / before)).sum())


def _shares(edges: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    # below, at, between … the edges: the sum of both sides' places tells them apart
    cells = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    counts = np.bincount(cells, minlength=2 * len(edges) + 1) + 0.5
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def thinned(parts: Iterable[NDArray[np.float32]], limit: int) -> NDArray[np.float32]:
    """At most `limit` rows, evenly over all parts: every row, or every 2nd, 4th … as there are more."""
    kept: list[NDArray[np.float32]] = []
    stride, seen = 1, 0
    for part in parts:
        kept.append(part[-seen % stride :: stride])
        seen += len(part)
        while sum(map(len, kept)) > limit:
            kept, stride = [np.concatenate(kept)[::2]], 2 * stride
    return np.concatenate(kept) if kept else np.empty((0, 0), np.float32)
