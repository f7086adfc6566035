"""What a release that nobody saw would have earned, from lists that another one showed with known probabilities.

SNIPS, the self-normalised estimator: Swaminathan and Joachims, "The Self-Normalized Estimator for Counterfactual
Learning" (NeurIPS 2015): Σ w r / Σ w with w = target / logged probability. Doubly robust: Dudík, Langford and Li (ICML
2011): what a model predicts for the target policy, corrected by the weighted errors of that model on what was shown;
here the correction is self-normalised too, so that one large weight does not decide.

Intervals treat the person as the unit (several lists of one person are one draw): the delta method for a ratio of sums
over people, each deviation as it is without the row itself (the jackknife: Efron and Stein, Annals of Statistics 9,
1981), for one large weight draws the mean towards itself. Weights are cut at `clip` (Ionides, Journal of Computational
and Graphical Statistics 17, 2008): a bias towards the logging policy for less variance. A small effective sample size,
(Σ w)² / Σ w² (Kong 1992), says that an interval rests on few lists; that, or the number of people where it is less, is
the t distribution's degrees of freedom.

Slates. A log holds the probability of each place's product given those above it (log.proto). A list's quotient is the
product of its places', which leaves an effective sample of a handful from lists of eight. What whole lists of another
order earn follows with one assumption, that a click depends on product, person and place, not on the neighbours: the
item-position model of Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, "Offline Evaluation of Ranking Policies
with Click Models" (KDD 2018). Then a place weighs the chance that the target puts this product at this place, over the
chance that the logging policy did so, whatever was above: `place_chances`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from headrace.trainer.analysis.variance_reduction import Floats

# N rows, B lists, K places
CLIP = 100.0
_LEVEL = 0.95
# of log time; the rule's error falls with exp(−π²/step)
_STEP = 0.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; `people` are the clusters behind it."""

    value: float
    lower: float
    upper: float
    effective_sample_size: float
    people: int


def snips(
    rewards: Floats,
    propensities: Floats,
    target_propensities: Floats,
    clusters: NDArray[np.integer],
    *,
    clip: float = CLIP,
    level: float = _LEVEL,
) -> Estimate:
    """The mean reward of a row under the target policy. ValueError: a row with a reward that could not be logged.

    >>> rows = np.array([1.0, 0.0, 1.0, 0.0]), np.full(4, 0.5), np.array([1.0, 0.0, 1.0, 0.0])
    >>> snips(*rows, np.arange(4)).value
    1.0
    """
    weights = slate_weights(propensities[:, None], target_propensities[:, None], clip=clip)
    return slate_value(rewards[:, None], weights, clusters, level=level)


def doubly_robust(
    rewards: Floats,
    propensities: Floats,
    target_propensities: Floats,
    predicted: Floats,
    target_predicted: Floats,
    clusters: NDArray[np.integer],
    *,
    clip: float = CLIP,
    level: float = _LEVEL,
) -> Estimate:
    """The same, helped by a model: what it `predicted` for what was shown, and `target_predicted` on average over what
    the target policy would have shown in its place. Right when either the propensities or the model are right.
    """
    weights = slate_weights(propensities[:, None], target_propensities[:, None], clip=clip)
    columns = rewards[:, None], weights, predicted[:, None], target_predicted[:, None]
    return slate_doubly_robust(*columns, clusters, level=level)


def place_chances(logits_BK: Floats, share: float | Floats, best_BK: NDArray[np.integer] | None = None) -> Floats:
    """[B, K] probability that a product is at the place where it was shown, whatever is above it, of lists in shown
    order, when a `share` of lists (one for all, or of each list's policy) is drawn from Plackett and Luce's model and
    the rest are in the order of `logits_BK`; `best_BK`: that order, where equal ones don't go by place.

    Lists that are shorter than K end in −∞. A draw from Plackett and Luce's model is a race of exponential clocks: a
    product is at place k when just k others ring before it. That is an integral over the time of its own ring, here by
    the trapezoidal rule over log time.
    """
    logits_BK = logits_BK - logits_BK.max(axis=1, keepdims=True)
    speed_BK = np.exp(logits_BK)
    lists, width = logits_BK.shape
    drawn_BK = np.zeros(logits_BK.shape)
    slowest = float(logits_BK[np.isfinite(logits_BK)].min(initial=0.0))
    for log_time in np.arange(np.log(1e-5), np.log(40.0) - slowest + _STEP, _STEP):
        time = np.exp(log_time)
        quiet_BK = np.exp(-speed_BK * time)
        for place in range(width):
            # [k, B]: the chance that so many of the others have rung, up to `place`
            rung = np.zeros((place + 1, lists))
            rung[0] = 1.0
            for other in range(width):
                if other != place:
                    quiet = quiet_BK[:, other]
                    rung[1:] = rung[1:] * quiet + rung[:-1] * (1.0 - quiet)
                    rung[0] *= quiet
            drawn_BK[:, place] += _STEP * time * speed_BK[:, place] * quiet_BK[:, place] * rung[place]
    best_BK = np.argsort(-logits_BK, axis=1, kind="stable") if best_BK is None else best_BK
    is_at_place = np.argsort(best_BK, axis=1) == np.arange(width)
    share_B1 = np.broadcast_to(np.asarray(share), lists)[:, None]
    return np.asarray((1.0 - share_B1) * is_at_place + share_B1 * drawn_BK)


def slate_weights(propensities_BK: Floats, target_propensities_BK: Floats, *, clip: float = CLIP) -> Floats:
    """[B, K] weights, cut at `clip`; 0 where the target puts something else. ValueError: something was shown that
    could not be."""
    wanted_BK = target_propensities_BK > 0.0
    if (propensities_BK[wanted_BK] <= 0.0).any():
        raise ValueError(f"propensities must be above 0, got {float(propensities_BK.min())}")
    quotients_BK = np.divide(target_propensities_BK, propensities_BK, out=np.zeros(wanted_BK.shape), where=wanted_BK)
    return np.minimum(quotients_BK, clip)


def slate_value(
    rewards_BK: Floats,
    weights_BK: Floats,
    clusters_B: NDArray[np.integer],
    *,
    sizes_B: NDArray[np.integer] | None = None,
    level: float = _LEVEL,
) -> Estimate:
    """The sum of rewards over a list under the target policy, place by place; `sizes_B`: of lists shorter than K."""
    nothing = np.zeros(rewards_BK.shape)
    return slate_doubly_robust(rewards_BK, weights_BK, nothing, nothing, clusters_B, sizes_B=sizes_B, level=level)


def slate_doubly_robust(
    rewards_BK: Floats,
    weights_BK: Floats,
    predicted_BK: Floats,
    target_predicted_BK: Floats,
    clusters_B: NDArray[np.integer],
    *,
    sizes_B: NDArray[np.integer] | None = None,
    level: float = _LEVEL,
) -> Estimate:
    """As `doubly_robust`, place by place; `target_predicted_BK`: the model's mean over what the target would put there.

    Each place is normalised by its own weights, and what a person deviates by is summed over places, which so need not
    be independent. Where no weight is at a place there is no value: an effective sample size of 0.
    """
    lists, places = rewards_BK.shape
    sizes_B = np.full(lists, places) if sizes_B is None else sizes_B
    has_BK = np.arange(places) < sizes_B[:, None]
    weights_BK = np.where(has_BK, weights_BK, 0.0)
    totals_K, lists_K = weights_BK.sum(axis=0), has_BK.sum(axis=0)
    if not lists or not (totals_K[lists_K > 0] > 0.0).all():
        return Estimate(0.0, 0.0, float(rewards_BK.sum(axis=1).max(initial=0.0)), 0.0, 0)
    held = lists_K > 0
    weights, totals, has, counts = weights_BK[:, held], totals_K[held], has_BK[:, held], lists_K[held]
    errors = rewards_BK[:, held] - predicted_BK[:, held]
    corrections = (weights * errors).sum(axis=0) / totals
    means = np.where(has, target_predicted_BK[:, held], 0.0).sum(axis=0) / counts
    # a place that has one row's weight alone is decided by that row
    others = np.maximum(totals - weights, 1e-9 * totals)
    by_list = weights * (errors - corrections) / others
    by_list = by_list + np.where(has, target_predicted_BK[:, held] - means, 0.0) / counts
    share = counts / lists
    effective = float((totals**2 / (weights**2).sum(axis=0)).min())
    return _interval(float((means + corrections) @ share), by_list @ share, clusters_B, effective, level)


def _interval(
    value: float, deviations_B: Floats, clusters_B: NDArray[np.integer], effective: float, level: float
) -> Estimate:
    _, which_B = np.unique(clusters_B, return_inverse=True)
    by_person = np.bincount(which_B, deviations_B)
    people = len(by_person)
    error = float(np.sqrt((by_person**2).sum() * people / max(people - 1, 1)))
    width = float(student.ppf(0.5 + level / 2.0, max(min(effective, people) - 1.0, 1.0))) * error
    return Estimate(value, value - width, value + width, effective, people)
