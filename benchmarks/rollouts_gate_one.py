"""Releases at gate 1 in the shop: shuffled ones, and 144 a day that change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.rollouts_shop import SHOWN, STABLE_ERROR, Floats, Ints, Shop, Singles, click_chance, scores
from headrace.trainer.analysis.error_budget import INCREMENT, ErrorBudget
from headrace.trainer.analysis.evidence import (
    Calibration,
    Kept,
    LiveShadow,
    LoggedEvidence,
    PairedMean,
    ShadowEvidence,
    Value,
)
from headrace.trainer.analysis.gate_one import GO_ON, STOP, shadow_verdict
from headrace.trainer.analysis.policy import BudgetPolicy, ShadowPolicy

RELEASES_A_DAY = 144
# requests that both releases score, and of how many candidates
_REQUESTS, _MOST_REQUESTS, _CANDIDATES, _TOP = 120, 400, 40, 20
# how far the scores of the next release of a lineage are from those of the last, at tastes that differ by about 1.3
_STEP = 0.1
_NO_VALUE = Value(0.0, 0.0, 0.0, 0.0)
_NOT_ASKED = Kept(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Logged:
    """Lists that people were shown a day, best first by the serving release, and what they clicked."""

    person: Ints
    scores: Singles
    clicked: NDArray[np.bool_]

    @classmethod
    def of(cls, rng: np.random.Generator, shop: Shop) -> Logged:
        visits = shop.visits(rng, 0, 1)
        # a person's first visit: the losses of people are then independent
        visits = visits.take(np.unique(visits.person, return_index=True)[1])
        found = scores(rng, visits.liking, STABLE_ERROR)
        best = np.argsort(-found, axis=1)[:, :SHOWN]
        chance = click_chance(np.take_along_axis(visits.liking, best, axis=1), visits.intent)
        return cls(visits.person, np.take_along_axis(found, best, axis=1), rng.random(chance.shape) < chance)


@dataclass(frozen=True)
class Shuffled:
    """What became of a release whose scores are shuffled over its candidates, and after how many live requests."""

    is_increment: bool
    sees: str
    is_stopped: bool
    requests: int


def shuffled(seed: int, active: int) -> list[Shuffled]:
    """An increment and another lineage; with both kinds of evidence, live requests alone and logged lists alone."""
    rng = np.random.default_rng(seed)
    logged = Logged.of(rng, Shop(rng, active))
    base = rng.normal(0.0, 1.6, (_MOST_REQUESTS, _CANDIDATES)).astype(np.float32)
    live, known = (rng.permuted(values, axis=1) for values in (base, logged.scores))
    usual, losses = _losses(logged.scores, logged.clicked), _losses(known, logged.clicked)
    agreement = _spearman(logged.scores, known)
    found = []
    for is_increment, sees in product((True, False), ("both", "live", "logged")):
        # it is looked at as requests come in
        for requests in range(20, _MOST_REQUESTS + 1, 20):
            pairs = _live(base[:requests], live[:requests]) if sees != "logged" else LiveShadow()
            rows = slice(0, requests)
            paired = _logged(usual[rows], losses[rows], float(agreement[rows].mean())) if sees != "live" else None
            evidence = ShadowEvidence("r-000002", is_increment, 9.0 * requests, _ALPHA_EACH, pairs, paired)
            decision = shadow_verdict(evidence, ShadowPolicy()).decision
            if decision != GO_ON:
                break
        found.append(Shuffled(is_increment, sees, decision == STOP, requests))
    return found


def false_stops(seed: int, active: int, days: int) -> list[int]:
    """How many of 144 releases that change nothing are stopped, by day: α comes from the day's budget."""
    rng = np.random.default_rng(seed)
    logged = Logged.of(rng, Shop(rng, active))
    base = rng.normal(0.0, 1.6, (_REQUESTS, _CANDIDATES)).astype(np.float32)
    usual = _losses(logged.scores, logged.clicked)
    live = _live(base, base + np.float32(_STEP) * rng.standard_normal(base.shape, dtype=np.float32))
    budget, policy, stops = ErrorBudget(), BudgetPolicy(), []
    for day in range(days):
        # other people at each release, and another small step each time
        rows = rng.integers(0, len(usual), (RELEASES_A_DAY, _REQUESTS))
        step = np.float32(_STEP) * rng.standard_normal((*rows.shape, SHOWN), dtype=np.float32)
        losses = _losses(logged.scores[rows] + step, logged.clicked[rows])
        # the same for all, within a hundredth
        agreement = float(_spearman(logged.scores[rows[0]], logged.scores[rows[0]] + step[0]).mean())
        stopped = 0
        for release in range(RELEASES_A_DAY):
            alpha, budget = budget.allotted(20_000 + day, INCREMENT, policy)
            paired = _logged(usual[rows[release]], losses[release], agreement)
            evidence = ShadowEvidence(f"r-{release:06d}", True, 300.0, alpha, live, paired)
            stopped += shadow_verdict(evidence, ShadowPolicy()).decision == STOP
        stops.append(stopped)
    return stops


_ALPHA_EACH = BudgetPolicy().increment_alpha * BudgetPolicy().increment_part


def _live(base: Singles, candidate: Singles) -> LiveShadow:
    ranks = [np.argsort(np.argsort(-values, axis=1), axis=1) for values in (base, candidate)]
    overlaps = [float(((ranks[0] < top) & (ranks[1] < top)).sum() / top) for top in (10, _TOP)]
    spearman = _spearman(base, candidate)
    return LiveShadow(
        pairs=len(base),
        sum_overlap_at_10=overlaps[0],
        sum_overlap_at_20=overlaps[1],
        sum_rank_correlation=float(spearman.sum()),
        sum_tower_correlation=float(spearman.sum()),
    )


def _spearman(base: Singles, candidate: Singles) -> Floats:
    ranks = [
        np.argsort(np.argsort(values, axis=-1), axis=-1) - (values.shape[-1] - 1) / 2.0 for values in (base, candidate)
    ]
    return np.asarray((ranks[0] * ranks[1]).sum(axis=-1) / (ranks[0] ** 2).sum(axis=-1))


def _losses(values: Singles, clicked: NDArray[np.bool_]) -> Floats:
    # a list's mean log loss of a click head that reads the scores
    logit = np.float32(0.7) * values - np.float32(1.8) - np.log1p(np.float32(0.25) * np.arange(SHOWN, dtype=np.float32))
    signed = np.where(clicked, -logit, logit)
    return np.asarray((np.maximum(signed, 0.0) + np.log1p(np.exp(-np.abs(signed)))).mean(axis=-1), np.float64)


def _logged(baseline: Floats, candidate: Floats, agreement: float) -> LoggedEvidence:
    people = len(baseline)
    difference = candidate - baseline
    error = float(difference.std(ddof=1) / np.sqrt(people))
    loss = PairedMean(float(candidate.mean()), float(baseline.mean()), float(difference.mean()), error, people)
    sound = Calibration(0.1, 0.1, 0.0)
    values = (_NO_VALUE, _NO_VALUE, _NO_VALUE, _NO_VALUE)
    return LoggedEvidence(people, people, loss, loss, sound, sound, agreement, *values, _NOT_ASKED, _NOT_ASKED, 0)
