"""Bounds that hold at every look at once: how far an estimate may be from the truth, however often one peeks.

Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences"
(Annals of Statistics 52, 2024; arXiv 2103.06476), one-sided form of their appendix: with x = tρ², an estimate of
standard error s is at every t from some first one on within

    s · sqrt( 2 (1 + 1/x) · log(1 + sqrt(1 + x) / (2α)) )

of the truth, on one side, but for a chance of α. They count t in independent draws. Ours are people who come back, so
the sum of their deviations is no random walk in t; it is compared with Brownian motion on the clock of its own variance
V instead (x = V/λ). Deviations of one person that agree from visit to visit make what is summed later more like what
was summed before than Brownian motion would be, and by Slepian's inequality (Bell System Technical Journal 41, 1962) a
Gaussian process of equal variances and larger correlations crosses a line no more often. So the bound holds, and is
cautious where people differ much.
"""

from __future__ import annotations

import math


def bound(alpha: float, clock: float) -> float:
    """How many standard errors the truth is at most away, on one side, at every look; `clock` is x above.

    >>> round(bound(0.025, 9.0), 2)
    3.04
    """
    if clock <= 0.0:
        return math.inf
    return math.sqrt(2.0 * (1.0 + 1.0 / clock) * math.log1p(math.sqrt(1.0 + clock) / (2.0 * alpha)))


def clock_of(variance: float, tightest_at: float, alpha: float) -> float:
    """The clock x at a variance of the summed deviations, such that the bound is about tightest at `tightest_at`.

    Of the same paper (section on ρ): the best x for a two-sided α is −2 log α + log(−2 log α) + 1.
    """
    twice = -2.0 * math.log(min(2.0 * alpha, 0.5))
    return variance / tightest_at * (twice + math.log(twice) + 1.0)
