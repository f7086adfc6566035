"""The relative difference of two arms with people as units, freed of what was known of them before.

The metric of an arm is a ratio R = Σ outcome / Σ exposure. Its variance is that of a sum over people of
(outcome − R · exposure) / Σ exposure: the delta method with the person as the cluster (Deng, Knoblich and Lu,
"Applying the Delta Method in Metric Analytics", KDD 2018, section 3). Arms are compared by log R: a difference of
logarithms is a relative one, and closer to normal than a quotient.

Covariates from before the step (CUPED: Deng, Xu, Kohavi and Walker, WSDM 2013) are means over exposure too, U = Σ u /
Σ exposure, where a unit's u is what was known of its person. The arms were drawn by lot, so U differs by chance only,
and

    θ = log R_canary − log R_stable − β · (U_canary − U_stable)

estimates the same with less variance for any β; the β taken makes the variance least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.trainer.analysis.evidence import WIDTH, Moments

Floats = NDArray[np.float64]

# what is known of somebody before counts as if they had come this many times more
_PRIOR_VISITS = 2.0
_UPPER = np.triu_indices(WIDTH)


@dataclass(frozen=True, slots=True)
class Contrast:
    """`log_ratio`: canary to stable, adjusted. `variance` is of the sum exposure · log_ratio (the clock's)."""

    stable: float
    canary: float
    log_ratio: float
    standard_error: float
    exposure: float
    # the share of the variance that the covariates took away
    explained: float

    @property
    def variance(self) -> float:
        return (self.exposure * self.standard_error) ** 2


def visit_covariates(outcomes: Floats, visits: Floats) -> Floats:
    """What is known of people who had `outcomes` in `visits` before: two columns, of which any mix of two constants
    is their rate drawn towards a common one.
    """
    return np.stack([outcomes, visits], axis=1) / (visits[:, None] + _PRIOR_VISITS)


def person_covariates(visits: Floats) -> Floats:
    """The same for what is counted once a person: how often they came, twice, as visits are very uneven."""
    return np.stack([visits, np.log1p(visits)], axis=1)


def moments(outcomes: Floats, exposures: Floats, covariates: Floats) -> Moments:
    """The sums over people (rows), of whom those without exposure are none of the arm's."""
    rows = np.column_stack([outcomes, exposures, covariates * exposures[:, None]])[exposures > 0]
    products = (rows.T @ rows)[_UPPER]
    return Moments(len(rows), tuple(rows.sum(axis=0).tolist()), tuple(products.tolist()))


def contrast(stable: Moments, canary: Moments) -> Contrast | None:
    """The difference of the arms; None while it has no standard error (fewer than two people, nothing happened)."""
    if min(stable.people, canary.people) < 2 or stable.sums[0] + canary.sums[0] <= 0.0:
        return None
    arms = [_Arm.of(stable), _Arm.of(canary)]
    within = sum((arm.deviations[1:, 1:] for arm in arms), np.zeros((WIDTH - 2, WIDTH - 2)))
    across = sum((arm.deviations[1:, 0] for arm in arms), np.zeros(WIDTH - 2))
    # a covariate that is the same for everybody takes nothing away
    beta = np.linalg.pinv(within, rcond=1e-9, hermitian=True) @ across
    mix = np.concatenate([[1.0], -beta])
    variance = float(sum(mix @ arm.deviations @ mix for arm in arms))
    plain = float(sum(arm.deviations[0, 0] for arm in arms))
    difference = arms[1].log_rate - arms[0].log_rate - float(beta @ (arms[1].known - arms[0].known))
    exposure = 1.0 / (1.0 / stable.sums[1] + 1.0 / canary.sums[1])
    if variance <= 0.0:
        return None
    return Contrast(
        stable=stable.sums[0] / stable.sums[1],
        canary=canary.sums[0] / canary.sums[1],
        log_ratio=difference,
        standard_error=math.sqrt(variance),
        exposure=exposure,
        explained=1.0 - variance / plain if plain > 0.0 else 0.0,
    )


@dataclass(frozen=True, slots=True)
class _Arm:
    log_rate: float
    known: Floats
    # covariances of log R and of U
    deviations: Floats

    @classmethod
    def of(cls, sums: Moments) -> _Arm:
        outcome, exposure = sums.sums[0], sums.sums[1]
        known = np.array(sums.sums[2:]) / exposure
        products = _square(sums.products)
        if outcome <= 0.0:
            # nothing yet: as if one person had done half of a thing, so that an arm in which nothing happens can lose
            outcome, products = 0.5, products + np.diag([0.25, *[0.0] * (WIDTH - 1)])
        rate = outcome / exposure
        # rows: (outcome − R exposure) / R and u − U exposure, as mixes of the columns of Moments
        mixes = np.zeros((WIDTH - 1, WIDTH))
        mixes[0, 0], mixes[0, 1] = 1.0 / rate, -1.0
        mixes[1:, 1] = -known
        mixes[1:, 2:] = np.eye(WIDTH - 2)
        few = sums.people / (sums.people - 1.0)
        return cls(math.log(rate), known, mixes @ products @ mixes.T * few / exposure**2)


def _square(upper: tuple[float, ...]) -> Floats:
    square = np.zeros((WIDTH, WIDTH))
    square[_UPPER] = upper
    return square + np.triu(square, 1).T
