"""A small share of answers in an order drawn by chance, so that other orders can be valued from what was logged.

With probability ε (the share) the best of the slate are put in order by Plackett and Luce's model: each place goes to
one of those left with probability softmax(score / temperature), drawn by Gumbel noise (Kool et al., "Stochastic Beams
and Where to Find Them", ICML 2019). Else the order is by score. Whichever of the two served, the policy that an
estimator must divide by is the mixture of both: so are the propensities.
"""

# S slate

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GREEDY, SOFTMAX = "greedy", "softmax"

_SEED_BYTES = 24


@dataclass(frozen=True, slots=True)
class Policy:
    """How an order was chosen: what drew it, and what it was drawn from."""

    name: str = GREEDY
    share: float = 0.0
    temperature: float = 0.0
    # places from the first on that chance could fill
    slate: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """An order of a slate, and the probability of each place's item given those above it."""

    policy: Policy
    order_S: NDArray[np.intp]
    propensities_S: NDArray[np.float32]


class Exploration:
    """Draws orders for a `share` of answers.

    `temperature` is in standard deviations of the slate's scores, so that it means the same for every list.
    """

    def __init__(self, share: float, temperature: float) -> None:
        self.share = share
        self._temperature = temperature

    def choice(self, scores_S: NDArray[np.float32], answer: str) -> Choice:
        """The order of a slate that is sorted by score; the same for the same `answer`, which nobody can foresee."""
        digest = hashlib.blake2b(answer.encode(), digest_size=_SEED_BYTES, person=b"exploration").digest()
        is_explored = int.from_bytes(digest[:8], "little") < self.share * 2**64
        logits_S = self._logits(scores_S)
        order_S = _drawn(logits_S, digest[8:]) if is_explored else np.arange(len(logits_S))
        policy = Policy(SOFTMAX if is_explored else GREEDY, self.share, self._temperature, len(scores_S))
        return Choice(policy, order_S, mixture_propensities(logits_S, order_S, self.share))

    def _logits(self, scores_S: NDArray[np.float32]) -> NDArray[np.float64]:
        spread = float(np.std(scores_S, dtype=np.float64))
        # equal scores: every order is as likely
        scale = self._temperature * spread if spread > 0 else 1.0
        logits_S: NDArray[np.float64] = scores_S.astype(np.float64) / scale
        return logits_S


def _drawn(logits_S: NDArray[np.float64], seed: bytes) -> NDArray[np.intp]:
    noise_S = np.random.default_rng(int.from_bytes(seed, "little")).gumbel(size=len(logits_S))
    order_S: NDArray[np.intp] = np.argsort(-(logits_S + noise_S), kind="stable")
    return order_S


def mixture_propensities(logits_S: NDArray[np.float64], order_S: NDArray[np.intp], share: float) -> NDArray[np.float32]:
    """Each place's probability given those above it, when a `share` of orders is drawn and the rest are 0, 1, 2 …

    The probability that the first places are as they are is ε Π softmax + (1 − ε) [they are greedy's]; a place's is
    the quotient of two such. So the product over a list is the probability of the whole list.
    """
    places = np.arange(len(order_S))
    if share <= 0:
        certain_S: NDArray[np.float32] = (order_S == places).astype(np.float32)
        return certain_S
    ordered_S = logits_S[order_S]
    left_S = np.logaddexp.accumulate(ordered_S[::-1])[::-1]
    # logarithms: the chance of a long list is too small for a float
    drawn_S = math.log(share) + np.cumsum(ordered_S - left_S)
    is_greedy_S = np.logical_and.accumulate(order_S == places)
    greedy = math.log1p(-share) if share < 1 else -math.inf
    prefix_S = np.where(is_greedy_S, np.logaddexp(drawn_S, greedy), drawn_S)
    above_S = np.concatenate([[0.0], prefix_S[:-1]])
    propensities_S: NDArray[np.float32] = np.exp(np.minimum(prefix_S - above_S, 0.0)).astype(np.float32)
    return propensities_S
