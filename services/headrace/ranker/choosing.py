"""The order in which a ranked list is shown: by score, or for a few answers drawn by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.ranker.exploration import GREEDY, Exploration, Policy
from headrace.ranker.ranking import Ranked
from headrace.runtime.telemetry import counter

# a part for lists whose order is a promise: sorted by price, the caller's own candidates, what was viewed last
NO_PART = slice(0, 0)

_explored = counter("headrace.ranker.explored", "{answer}", "answers whose order was drawn by chance")


@dataclass(frozen=True, slots=True)
class Chosen:
    """A list in the order in which it is shown, and each place's probability given those above it."""

    ranked: Ranked
    propensities: NDArray[np.float32]
    policy: Policy


def chosen(ranked: Ranked, part: slice, exploration: Exploration, answer: str) -> Chosen:
    """Lets chance order `part` of a list, as far as that is scored; `answer` decides whether and how.

    Nothing comes in that greedy could not have shown there: only places within the part are changed.
    """
    part = slice(part.start, min(part.stop, len(ranked.features)))
    propensities = np.ones(len(ranked.candidates), np.float32)
    if part.stop - part.start < 2 or not exploration.share:
        return Chosen(ranked, propensities, Policy())
    choice = exploration.choice(ranked.scores[part], answer)
    propensities[part] = choice.propensities_S
    if choice.policy.name == GREEDY:
        return Chosen(ranked, propensities, choice.policy)
    _explored.add(1)
    return Chosen(ranked.with_part_ordered(part, choice.order_S), propensities, choice.policy)
