"""Off-policy intervals in the shop: what a release that nobody saw would have earned, and what it truly earns.

The logged release orders lists by score and a small share of them by chance. The candidate would order the same lists
by scores of its own. Its truth is what people click when it does, at far more visits of the same people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.rollouts_shop import SHOWN, STABLE_ERROR, Floats, Ints, Shop, Singles, Visits, click_chance, scores
from headrace.trainer.analysis.evidence import Value
from headrace.trainer.analysis.off_policy import (
    Estimate,
    place_chances,
    slate_doubly_robust,
    slate_value,
    slate_weights,
)


@dataclass(frozen=True)
class Exploration:
    """Of the logging policy; the temperature is in standard deviations of a list's scores."""

    share: float = 0.1
    temperature: float = 1.0


# the same lists, far more of them
TRUTH = 3

_PLACES = np.arange(SHOWN)
_SIGHT = 1.0 / (1.0 + 0.25 * _PLACES)


@dataclass(frozen=True)
class Lists:
    """B lists of K products, with what both releases think of them."""

    person: Ints
    liking: Singles
    intent: Singles
    logged: Floats
    candidate: Floats

    def ordered(self, order: Ints) -> Lists:
        liking = np.take_along_axis(self.liking, order, axis=1)
        logged = np.take_along_axis(self.logged, order, axis=1)
        return Lists(self.person, liking, self.intent, logged, np.take_along_axis(self.candidate, order, axis=1))


def lists_of(rng: np.random.Generator, visits: Visits, candidate_error: float) -> Lists:
    """The best products of each visit by the logged release, best first."""
    logged = scores(rng, visits.liking, STABLE_ERROR)
    best = np.argsort(-logged, axis=1)[:, :SHOWN]
    liking = np.take_along_axis(visits.liking, best, axis=1)
    candidate = scores(rng, liking, candidate_error).astype(np.float64)
    return Lists(
        visits.person, liking, visits.intent, np.take_along_axis(logged, best, axis=1).astype(np.float64), candidate
    )


def logits(values: Floats, temperature: float) -> Floats:
    """What Plackett and Luce's model draws by."""
    return np.asarray(values / (temperature * values.std(axis=1, keepdims=True)))


def shown(rng: np.random.Generator, lists: Lists, exploration: Exploration) -> Lists:
    """The lists as the logged release showed them."""
    noise = np.where(rng.random((len(lists.person), 1)) < exploration.share, rng.gumbel(size=lists.logged.shape), 0.0)
    return lists.ordered(np.argsort(-(logits(lists.logged, exploration.temperature) + noise), axis=1))


def truth(lists: Lists) -> float:
    """Clicks a list that the candidate's orders earn: expected ones, so that only people and lists are drawn."""
    ordered = lists.ordered(np.argsort(-lists.candidate, axis=1))
    return float(click_chance(ordered.liking, ordered.intent).sum(axis=1).mean())


def estimates(rng: np.random.Generator, lists: Lists, exploration: Exploration) -> dict[str, Estimate]:
    """What the log of these lists says of the candidate, by method."""
    given = shown(rng, lists, exploration)
    chance = click_chance(given.liking, given.intent)
    clicks = (rng.random(chance.shape) < chance).astype(np.float64)
    order = np.argsort(-given.candidate, axis=1)
    # the candidate would show this product at this place
    agrees = (np.argsort(order, axis=1) == _PLACES).astype(np.float64)
    chances = place_chances(logits(given.logged, exploration.temperature), exploration.share)
    weights = slate_weights(chances, agrees)
    model = click_model(given.logged)
    foretold = np.take_along_axis(model, order, axis=1) * _SIGHT
    return {
        "snips": slate_value(clicks, weights, lists.person),
        "doubly robust": slate_doubly_robust(clicks, weights, model * _SIGHT, foretold, lists.person),
    }


def click_model(values: Floats) -> Floats:
    """A click head that is not quite right: it knows the logged scores, neither tastes nor intents."""
    return np.asarray(1.0 / (1.0 + np.exp(1.8 - 0.7 * values)))


# an estimate, or what gate 1 keeps of one
Found = dict[str, tuple[float, Estimate | Value]]


def one_run(seed: int, errors: Sequence[float], active: int, days: int, exploration: Exploration) -> list[Found]:
    """By candidate and method, the truth and the estimate in a world of its own."""
    return in_a_world(seed, errors, active, days, lambda rng, lists: estimates(rng, lists, exploration))


def in_a_world(
    seed: int,
    errors: Sequence[float],
    active: int,
    days: int,
    said_of: Callable[[np.random.Generator, Lists], Mapping[str, Estimate | Value]],
) -> list[Found]:
    """By candidate and method, the truth and what `said_of` makes of the lists that were logged."""
    rng = np.random.default_rng(seed)
    shop = Shop(rng, active)
    many, few = shop.visits(rng, 0, TRUTH * days), shop.visits(rng, 0, days)
    found: list[Found] = []
    for error in errors:
        true_value = truth(lists_of(rng, many, error))
        said = said_of(rng, lists_of(rng, few, error))
        found.append({method: (true_value, one) for method, one in said.items()})
    return found


def coverage(method: str, candidate: str, rows: Sequence[tuple[float, Estimate | Value]]) -> dict[str, object]:
    """A row of results: how often the interval holds the truth."""
    return {
        "what": "off_policy",
        "method": method,
        "candidate": candidate,
        "runs": len(rows),
        "coverage": float(np.mean([one.lower <= truth <= one.upper for truth, one in rows])),
        "truth": round(float(np.mean([truth for truth, _ in rows])), 4),
        "bias": round(float(np.mean([one.value - truth for truth, one in rows])), 4),
        "width": round(float(np.mean([one.upper - one.lower for _, one in rows])), 4),
        "effective_sample_size": round(float(np.mean([one.effective_sample_size for _, one in rows])), 1),
    }
