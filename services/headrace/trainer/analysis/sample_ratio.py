"""Are people shared out between the arms as they should be? A test that may be looked at after every person.

Lindon and Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022): the Bayes factor of a Dirichlet
mixture against the intended shares is a martingale when they hold, so it ever exceeds 1/α with a chance of at most α.
"""

from __future__ import annotations

import math

# how sure the mixture is to be near the intended share: as if so many people had been seen
_CONCENTRATION = 100.0


def log_bayes_factor(canary: int, stable: int, share: float) -> float:
    """How much better another share explains who came than the intended `share` of the canary arm, as a logarithm.

    >>> round(log_bayes_factor(0, 0, 0.1), 6), log_bayes_factor(100, 900, 0.1) < 0 < log_bayes_factor(200, 800, 0.1)
    (0.0, True)
    """
    wins, losses = _CONCENTRATION * share, _CONCENTRATION * (1.0 - share)
    mixture = _log_beta(wins + canary, losses + stable) - _log_beta(wins, losses)
    return mixture - canary * math.log(share) - stable * math.log1p(-share)


def is_mismatched(canary: int, stable: int, share: float, alpha: float) -> bool:
    """Whether the arms are surely not shared out so; never when everybody is in one arm by intention."""
    return 0.0 < share < 1.0 and log_bayes_factor(canary, stable, share) >= -math.log(alpha)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
