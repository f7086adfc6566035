"""What a release that nobody saw would have earned, from lists that another one showed with known probabilities.

SNIPS, the self-normalised estimator: Swaminathan and Joachims, "The Self-Normalized Estimator for Counterfactual
Learning" (NeurIPS 2015): Σ w r / Σ w with w = target / logged probability. Doubly robust: Dudík, Langford and Li (ICML
2011): what a model predicts for the target policy, corrected by the weighted errors of that model on what was shown;
here the correction is self-normalised too, so that one large weight does not decide.

Intervals treat the person as the unit (several lists of one person are one draw): the delta method for a ratio of sums
over people. Weights are cut at `clip` (Ionides, Journal of Computational and Graphical Statistics 17, 2008: a bias that
is smaller than the variance it saves); what is cut away biases towards the logging policy. A small effective sample
size, (Σ w)² / Σ w² (Kong 1992), says that the interval rests on a few lists and is not to be believed.

Slates: the probability of a product is that at its place given those above it (log.proto), so the weight of a place is
its own quotient when what is above is taken as it was shown ("position-wise": the value of choosing each place anew), or
the product of the quotients down to it (Precup, Sutton and Singh 2000; "sequential": the value of the whole list).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from headrace.trainer.analysis.variance_reduction import Floats

# N rows, B lists, K places
CLIP = 20.0
_LEVEL = 0.95


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
    weights = _weights(propensities, target_propensities, clip)
    return weighted_mean(rewards, weights, clusters, level=level)


def weighted_mean(
    rewards: Floats, weights: Floats, clusters: NDArray[np.integer], *, level: float = _LEVEL
) -> Estimate:
    """Σ w r / Σ w, for weights that are made otherwise (see `slate_weights`)."""
    total = float(weights.sum())
    if total <= 0.0:
        return Estimate(0.0, float(rewards.min(initial=0.0)), float(rewards.max(initial=0.0)), 0.0, 0)
    value = float(weights @ rewards) / total
    deviations = weights * (rewards - value) / total
    return _estimate(value, deviations, weights, clusters, level)


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
    weights = _weights(propensities, target_propensities, clip)
    total = float(weights.sum())
    if total <= 0.0:
        # nothing that the target would show was shown: a model alone, of which nothing can be said
        return weighted_mean(rewards, weights, clusters, level=level)
    errors = rewards - predicted
    correction = float(weights @ errors) / total
    value = float(target_predicted.mean()) + correction
    modelled = (target_predicted - target_predicted.mean()) / len(rewards)
    return _estimate(value, modelled + weights * (errors - correction) / total, weights, clusters, level)


def slate_propensities(scores_BK: Floats, temperature: float, share: float) -> Floats:
    """[B, K] probabilities of the product at each place given those above it, of lists in shown order.

    The policy puts at each place, with chance `share`, a draw from the softmax of what is left, else the best left.
    """
    width = scores_BK.shape[1]
    found = np.empty(scores_BK.shape)
    for place in range(width):
        left = scores_BK[:, place:]
        best = left.max(axis=1)
        chance = np.exp((left - best[:, None]) / temperature)
        # equal scores share what the best one gets
        ties = (left == best[:, None]).sum(axis=1)
        greedy = np.where(left[:, 0] == best, 1.0 / ties, 0.0)
        found[:, place] = (1.0 - share) * greedy + share * chance[:, 0] / chance.sum(axis=1)
    return found


def slate_weights(
    propensities_BK: Floats, target_propensities_BK: Floats, *, sequential: bool = False, clip: float = CLIP
) -> Floats:
    """[B, K] weights by place: position-wise, or `sequential` (see above), cut at `clip`."""
    quotients = _weights(propensities_BK, target_propensities_BK, np.inf)
    return np.minimum(np.cumprod(quotients, axis=1) if sequential else quotients, clip)


def slate_value(
    rewards_BK: Floats, weights_BK: Floats, clusters_B: NDArray[np.integer], *, level: float = _LEVEL
) -> Estimate:
    """The sum of rewards over a list under the target policy: each place is normalised by its own weights, and what a
    person deviates by is summed over places, so places need not be independent.
    """
    totals_K = weights_BK.sum(axis=0)
    if not (totals_K > 0.0).all():
        return Estimate(0.0, 0.0, float(rewards_BK.sum(axis=1).max(initial=0.0)), 0.0, 0)
    values_K = (weights_BK * rewards_BK).sum(axis=0) / totals_K
    deviations_B = (weights_BK * (rewards_BK - values_K) / totals_K).sum(axis=1)
    # of the place that has least
    sizes_K = totals_K**2 / (weights_BK**2).sum(axis=0)
    return _interval(float(values_K.sum()), deviations_B, clusters_B, float(sizes_K.min()), level)


def slate_doubly_robust(
    rewards_BK: Floats,
    weights_BK: Floats,
    predicted_BK: Floats,
    target_predicted_BK: Floats,
    clusters_B: NDArray[np.integer],
    *,
    level: float = _LEVEL,
) -> Estimate:
    """As `doubly_robust`, place by place; `target_predicted_BK`: the model's mean over what the target would put there."""
    totals_K = weights_BK.sum(axis=0)
    if not (totals_K > 0.0).all():
        return slate_value(rewards_BK, weights_BK, clusters_B, level=level)
    errors_BK = rewards_BK - predicted_BK
    correction_K = (weights_BK * errors_BK).sum(axis=0) / totals_K
    mean_K = target_predicted_BK.mean(axis=0)
    parts_BK = weights_BK * (errors_BK - correction_K) / totals_K + (target_predicted_BK - mean_K) / len(rewards_BK)
    sizes_K = totals_K**2 / (weights_BK**2).sum(axis=0)
    value = float((mean_K + correction_K).sum())
    return _interval(value, parts_BK.sum(axis=1), clusters_B, float(sizes_K.min()), level)


def _weights(propensities: Floats, target: Floats, clip: float) -> Floats:
    if (propensities <= 0.0).any():
        raise ValueError(f"propensities must be above 0, got {float(propensities.min())}")
    return np.minimum(target / propensities, clip)


def _estimate(
    value: float, deviations: Floats, weights: Floats, clusters: NDArray[np.integer], level: float
) -> Estimate:
    size = float(weights.sum() ** 2 / (weights**2).sum())
    return _interval(value, deviations, clusters, size, level)


def _interval(value: float, deviations: Floats, clusters: NDArray[np.integer], size: float, level: float) -> Estimate:
    _, which = np.unique(clusters, return_inverse=True)
    by_person = np.bincount(which, deviations)
    people = len(by_person)
    error = float(np.sqrt((by_person**2).sum() * people / max(people - 1, 1)))
    width = NormalDist().inv_cdf(0.5 + level / 2.0) * error
    return Estimate(value, value - width, value + width, size, people)
