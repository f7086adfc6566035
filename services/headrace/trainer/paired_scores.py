"""Two releases' ranker networks over the same shown lists: losses by person, calibration, agreement.

R rows (shown items) end to end, G lists, H heads (rank, click, cart, purchase).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.ranker_network import GAINS
from headrace.trainer.analysis.evidence import Calibration, PairedMean
from headrace.trainer.recent_lists import ShownLists

Floats = NDArray[np.float64]

_BINS = 10
# a probability that was wrong costs at most 16: one row must not decide
_LEAST = 1e-7
_NOBODY = PairedMean(0.0, 0.0, 0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Scored:
    """What one release makes of the lists: a score and a probability of a click for each row."""

    scores_R: Floats
    clicks_R: Floats
    # rows for which it gave no finite number; they count as 0
    not_finite: int = 0

    @classmethod
    def of(cls, scores_R: NDArray[np.float32], clicks_R: NDArray[np.float32]) -> Scored:
        is_finite_R = np.isfinite(scores_R) & np.isfinite(clicks_R)
        scores, clicks = (np.where(is_finite_R, each, 0.0).astype(np.float64) for each in (scores_R, clicks_R))
        return cls(scores, clicks, int((~is_finite_R).sum()))


def click_loss(lists: ShownLists, candidate: Scored, baseline: Scored) -> PairedMean:
    """Log loss of the click head: a person's is the mean over their lists of the mean over a list."""
    now_G, then_G = (_list_means(lists, _log_losses(lists, scored)) for scored in (candidate, baseline))
    return _paired(now_G, then_G, lists.owners_G)


def order_loss(lists: ShownLists, candidate: Scored, baseline: Scored) -> PairedMean:
    """Listwise log loss of the order, graded as in training, over lists of which something followed."""
    if not len(lists):
        return _NOBODY
    gains_R = np.array(GAINS)[lists.labels_R]
    has_gain_G = _sums(lists, gains_R) > 0
    now_G, then_G = (_listwise(lists, scored.scores_R, gains_R)[has_gain_G] for scored in (candidate, baseline))
    return _paired(now_G, then_G, lists.owners_G[has_gain_G])


def calibration(lists: ShownLists, scored: Scored) -> Calibration:
    """Mean foretold and observed, and the expected calibration error over ten bins of as many rows each."""
    if not len(lists.labels_R):
        return Calibration(0.0, 0.0, 0.0)
    observed_R = _clicked(lists)
    error = 0.0
    for rows in np.array_split(np.argsort(scored.clicks_R, kind="stable"), _BINS):
        if len(rows):
            error += len(rows) * abs(float(scored.clicks_R[rows].mean() - observed_R[rows].mean()))
    return Calibration(float(scored.clicks_R.mean()), float(observed_R.mean()), error / len(observed_R))


def rank_agreement(lists: ShownLists, candidate: Scored, baseline: Scored) -> float:
    """Mean of Spearman's correlation of the two orders within a list; 1 where no list has two rows."""
    counts_G = lists.sizes_G.astype(np.float64)
    squares_R = (_places(lists, candidate.scores_R) - _places(lists, baseline.scores_R)) ** 2
    long_G = counts_G > 1
    if not long_G.any():
        return 1.0
    n = counts_G[long_G]
    return float(np.mean(1.0 - 6.0 * _sums(lists, squares_R)[long_G] / (n * (n**2 - 1.0))))


def list_numbers(lists: ShownLists) -> NDArray[np.int64]:
    """R: which list each row is of."""
    return np.repeat(np.arange(len(lists)), lists.sizes_G)


def _clicked(lists: ShownLists) -> Floats:
    return (lists.labels_R > 0).astype(np.float64)


def _log_losses(lists: ShownLists, scored: Scored) -> Floats:
    clicks_R = scored.clicks_R.clip(_LEAST, 1.0 - _LEAST)
    losses_R: Floats = np.where(lists.labels_R > 0, -np.log(clicks_R), -np.log1p(-clicks_R))
    return losses_R


def _listwise(lists: ShownLists, scores_R: Floats, gains_R: Floats) -> Floats:
    starts_G = np.cumsum(lists.sizes_G) - lists.sizes_G
    list_R = list_numbers(lists)
    shifted_R = scores_R - np.maximum.reduceat(scores_R, starts_G)[list_R]
    totals_G = np.log(_sums(lists, np.exp(shifted_R)))
    losses_G = -_sums(lists, gains_R * (shifted_R - totals_G[list_R]))
    gained_G: Floats = losses_G / np.maximum(_sums(lists, gains_R), 1.0)
    return gained_G


def _places(lists: ShownLists, scores_R: Floats) -> Floats:
    """0, 1, 2 … from the best of each list; equal scores by their place in it."""
    list_R = list_numbers(lists)
    order_R = np.lexsort((np.arange(len(scores_R)), -scores_R, list_R))
    places_R = np.empty(len(scores_R))
    places_R[order_R] = np.arange(len(scores_R)) - (np.cumsum(lists.sizes_G) - lists.sizes_G)[list_R]
    return places_R


def _sums(lists: ShownLists, values_R: Floats) -> Floats:
    return np.bincount(list_numbers(lists), values_R, minlength=len(lists)).astype(np.float64)


def _list_means(lists: ShownLists, values_R: Floats) -> Floats:
    means_G: Floats = _sums(lists, values_R) / lists.sizes_G
    return means_G


def _paired(candidate_G: Floats, baseline_G: Floats, owners_G: NDArray[np.int64]) -> PairedMean:
    if not len(owners_G):
        return _NOBODY
    _, person_G, counts_U = np.unique(owners_G, return_inverse=True, return_counts=True)
    candidate_U, baseline_U = (np.bincount(person_G, each_G) / counts_U for each_G in (candidate_G, baseline_G))
    differences_U = candidate_U - baseline_U
    people = len(differences_U)
    # of one person nothing is known about the spread: `people` says so
    error = float(differences_U.std(ddof=1) / np.sqrt(people)) if people > 1 else 0.0
    return PairedMean(float(candidate_U.mean()), float(baseline_U.mean()), float(differences_U.mean()), error, people)
