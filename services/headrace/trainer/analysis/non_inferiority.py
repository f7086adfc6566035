"""What the bounds of a relative difference say: better, not worse by more than a margin, worse, or nothing yet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from headrace.trainer.analysis.confidence_sequence import bound, clock_of
from headrace.trainer.analysis.variance_reduction import Contrast

BETTER, NOT_WORSE, WORSE, OPEN = "better", "not worse", "worse", "open"

# beyond a thousandfold nothing is said, and JSON has no infinity
_WIDEST = math.log(1_000.0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """A relative difference with bounds, each of which holds at every look but for a chance of its own.

    `surely_above`: the lower bound that fails with the chance that the upper one does.
    """

    difference: float
    lower: float
    upper: float
    surely_above: float

    def says(self, margin: float) -> str:
        if self.upper < 0.0:
            return WORSE
        if self.surely_above > 0.0:
            return BETTER
        return NOT_WORSE if self.lower > -margin else OPEN


UNKNOWN = Bounds(0.0, math.expm1(-_WIDEST), math.expm1(_WIDEST), math.expm1(-_WIDEST))


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a confidence sequence: its chance to fail ever, and where it is tightest (confidence_sequence.py)."""

    alpha: float
    tightest_at: float

    def width(self, found: Contrast) -> float:
        return found.standard_error * bound(self.alpha, clock_of(found.variance, self.tightest_at, self.alpha))


def bounds(found: Contrast, lower: Side, upper: Side) -> Bounds:
    """The bounds of a difference; `lower` is what passes a release, `upper` what shows harm."""
    ratio, below, above = found.log_ratio, lower.width(found), upper.width(found)
    return Bounds(_relative(ratio), _relative(ratio - below), _relative(ratio + above), _relative(ratio - above))


def exposure_needed(margin: float, variance: float, side: Side, power: float, truth: float = 0.0) -> float:
    """The power statement: the exposure (1/(1/canary + 1/stable), in units) at which a release that is truly better by
    `truth` has passed a margin with chance `power`, when a unit has this relative variance, people's clusters included.

    It is the least e with (log(1 + truth) − log(1 − margin)) / sqrt(variance/e) ≥ bound(e) + z(power): of a sequence
    that is looked at once at e; looks before can only add.
    """
    distance = math.log1p(truth) - math.log1p(-margin)
    z = NormalDist().inv_cdf(power)
    exposure = 1.0
    while distance * math.sqrt(exposure / variance) < _bound_at(exposure * variance, side) + z:
        exposure *= 1.01
    return exposure


def _bound_at(variance: float, side: Side) -> float:
    return bound(side.alpha, clock_of(variance, side.tightest_at, side.alpha))


def _relative(log_ratio: float) -> float:
    return math.expm1(min(max(log_ratio, -_WIDEST), _WIDEST))
