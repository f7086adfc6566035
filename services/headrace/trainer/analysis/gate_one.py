"""Gate 1: whether a release may go on to people, from what it would have shown beside the release that serves.

Two kinds of evidence, either of which can stop a release: live requests that both scored, and logged lists with what
followed. Limits say what no sound release does (orders at random, answers with NaN); losses are compared person by
person with a confidence sequence, since one looks again and again until there is enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter

from headrace.trainer.analysis.alikeness import Unlike, people_wanted, unlike
from headrace.trainer.analysis.confidence_sequence import bound, clock_of
from headrace.trainer.analysis.evidence import (
    Difference,
    Kept,
    LiveShadow,
    LoggedEvidence,
    PairedMean,
    ShadowEvidence,
    ShadowVerdict,
)
from headrace.trainer.analysis.non_inferiority import BETTER, NOT_WORSE, OPEN, WORSE
from headrace.trainer.analysis.policy import ShadowPolicy

GO_ON, PASS, STOP, INCONCLUSIVE = "go on", "pass", "stop", "inconclusive"

# tests that share a release's alpha: two losses, two towers, a value
_TESTS = 5
# the sequences are tightest at so many people, in units of the variance of one
_TIGHTEST_AT = 500.0


def shadow_verdict(evidence: ShadowEvidence, policy: ShadowPolicy) -> ShadowVerdict:
    """Stop on harm in either kind of evidence; pass on enough of both without harm; no evidence is never a verdict.

    At the time limit enough of one kind passes if the other shows no harm, and enough of none is inconclusive. Live
    requests are enough by themselves only for an order that is much like the baseline's, if it is an increment's.
    A release that does otherwise than the baseline stops unless what was logged vouches for it (alikeness.py).
    """
    logged, found = evidence.logged, _differences(evidence, policy)
    numbers = tuple(_numbers(evidence.live))
    harm = [*_stopping(evidence, policy), *(_says(one) for one in found if one.verdict == WORSE)]
    limits = tuple(unlike(evidence, policy))
    unvouched = _unvouched(limits, found)
    has_live = evidence.live.pairs >= policy.least_pairs
    has_logged = logged is not None and logged.people >= people_wanted(evidence, policy)
    is_late = evidence.seconds >= policy.most_seconds
    if harm or (unvouched and (has_logged or is_late)):
        return ShadowVerdict(STOP, "; ".join([*unvouched, *harm]), found, numbers)
    seen = f"{evidence.live.pairs} live pairs, {logged.people if logged else 0} logged people"
    if unvouched:
        reason = f"waits for what was logged to vouch for it: {'; '.join(unvouched)}"
        return ShadowVerdict(GO_ON, reason, found, numbers)
    vouched = "".join(_vouched(limits, found))
    if has_live and has_logged:
        return ShadowVerdict(PASS, f"no harm in {seen}{vouched}", found, numbers)
    if not is_late:
        return ShadowVerdict(GO_ON, f"waits for more than {seen}", found, numbers)
    if has_logged or is_enough_alone(evidence, policy):
        reason = f"no harm in {seen}, all that came in {evidence.seconds:.0f} s{vouched}"
        return ShadowVerdict(PASS, reason, found, numbers)
    return ShadowVerdict(INCONCLUSIVE, f"only {seen} in {evidence.seconds:.0f} s", found, numbers)


def is_enough_alone(evidence: ShadowEvidence, policy: ShadowPolicy) -> bool:
    """Whether live requests can vouch for a release that nothing is logged about."""
    live = evidence.live
    if live.pairs < policy.least_pairs:
        return False
    return not evidence.is_increment or live.sum_rank_correlation >= policy.increment_alike * live.pairs


def wants_vouching(evidence: ShadowEvidence, policy: ShadowPolicy) -> bool:
    """Whether the release does so much otherwise that it stops, should nothing vouch for it."""
    limits = tuple(unlike(evidence, policy))
    return bool(limits and _unvouched(limits, _differences(evidence, policy)))


def logged_evidence(said: Mapping[str, Any]) -> LoggedEvidence:
    """The part of a logged comparison's JSON that gate 1 reads."""
    return TypeAdapter(LoggedEvidence).validate_python({name: said[name] for name in LoggedEvidence.__annotations__})


def _stopping(evidence: ShadowEvidence, policy: ShadowPolicy) -> Iterator[str]:
    live, logged = evidence.live, evidence.logged
    if live.not_finite or (logged is not None and logged.not_finite):
        yield f"{live.not_finite + (logged.not_finite if logged else 0)} scores are not finite"
    yield from _failures(live, policy)
    if logged is not None and logged.lists >= policy.calibration_lists:
        yield from _calibration(logged, policy)
    if live.pairs >= policy.least_pairs:
        yield from _slowness(live, policy)


def _failures(live: LiveShadow, policy: ShadowPolicy) -> Iterator[str]:
    # a release that fails always never makes a pair
    tried = live.pairs + live.failures
    is_known = tried >= policy.least_pairs or live.failures >= policy.least_failures
    if is_known and live.failures > policy.failures * tried:
        yield f"{live.failures} of {tried} requests failed"


def _slowness(live: LiveShadow, policy: ShadowPolicy) -> Iterator[str]:
    mean_ms, baseline_ms = live.sum_ms / live.pairs, live.sum_baseline_ms / live.pairs
    if mean_ms > policy.latency_factor * baseline_ms and mean_ms - baseline_ms > policy.latency_slack_ms:
        yield f"scoring takes {mean_ms:.1f} ms, the baseline {baseline_ms:.1f}"


def _calibration(logged: LoggedEvidence, policy: ShadowPolicy) -> Iterator[str]:
    usual, found = logged.baseline_calibration.predicted, logged.calibration.predicted
    if not _have_clicked(logged, policy) or logged.calibration.observed <= 0.0 or usual <= 0.0:
        return
    # how far either is off, in the same direction or not, against what was observed
    off, usually_off = (abs(math.log(max(p, 1e-12) / logged.calibration.observed)) for p in (found, usual))
    if off > usually_off + math.log(policy.calibration_factor):
        yield f"predicts {found:.4f} clicks a product, {logged.calibration.observed:.4f} came, the baseline {usual:.4f}"


def _compared(logged: LoggedEvidence, alpha: float, policy: ShadowPolicy) -> Iterator[Difference]:
    click_loss = logged.click_loss if _have_clicked(logged, policy) else replace(logged.click_loss, people=0)
    for name, loss in (("click_loss", click_loss), ("order_loss", logged.order_loss)):
        yield _loss(name, loss, alpha, policy)
    for name, kept in (("towers_kept", logged.towers), ("queries_kept", logged.queries)):
        yield _kept(name, kept, alpha, policy)
    yield _value("off_policy_value", logged, policy)


def _have_clicked(logged: LoggedEvidence, policy: ShadowPolicy) -> bool:
    """Whether enough people did something with a list: where nobody does (a storefront that sends no tokens back, say)
    the release that thinks clicks likelier always loses, and is no worse for it.
    """
    return logged.order_loss.people >= policy.least_people


def _loss(name: str, loss: PairedMean, alpha: float, policy: ShadowPolicy) -> Difference:
    """Relative to the baseline's loss: worse is when even the lower bound is above the tolerance."""
    if loss.people < policy.least_people or loss.baseline <= 0.0 or loss.standard_error <= 0.0:
        return Difference(name, loss.baseline, loss.candidate, 0.0, -0.999, 999.0, loss.people, loss.people, OPEN)
    width = loss.standard_error * bound(alpha, clock_of(float(loss.people), _TIGHTEST_AT, alpha))
    middle, lower, upper = (
        value / loss.baseline for value in (loss.difference, loss.difference - width, loss.difference + width)
    )
    says = _by(lower > policy.loss_tolerance, upper < 0.0, upper < policy.loss_tolerance)
    return Difference(name, loss.baseline, loss.candidate, middle, lower, upper, loss.people, loss.people, says)


def _kept(name: str, kept: Kept, alpha: float, policy: ShadowPolicy) -> Difference:
    """Share of states: paired hits, of which only those count that one release alone has (McNemar 1947)."""
    states = kept.states
    if states < policy.least_people or kept.lost + kept.gained == 0:
        return Difference(name, kept.baseline_hits, kept.candidate_hits, 0.0, -0.999, 999.0, states, states, OPEN)
    middle = (kept.gained - kept.lost) / states
    variance = (kept.gained + kept.lost) / states - middle**2
    width = math.sqrt(variance / states) * bound(alpha, clock_of(float(states), _TIGHTEST_AT, alpha))
    lower, upper = middle - width, middle + width
    says = _by(upper < -policy.kept_tolerance, lower > 0.0, lower > -policy.kept_tolerance)
    return Difference(name, kept.baseline_hits, kept.candidate_hits, middle, lower, upper, states, states, says)


def _value(name: str, logged: LoggedEvidence, policy: ShadowPolicy) -> Difference:
    """Absolute, per list: harm only when the intervals part, which is far beyond what either says alone, and only
    where enough of what was logged weighs in it.

    The doubly robust value is what is told; SNIPS must part too. Where hardly anybody clicks the one goes by what the
    model of clicks foretells, and large weights in its correction take one release for worse; the other knows no model.
    """
    candidate, baseline, people = logged.doubly_robust, logged.baseline_doubly_robust, logged.people
    lower, upper = candidate.lower - baseline.upper, candidate.upper - baseline.lower
    is_worse = upper < 0.0 and logged.snips.upper < logged.baseline_snips.lower
    middle = candidate.value - baseline.value
    is_known = min(candidate.effective_sample_size, baseline.effective_sample_size) >= policy.least_people
    says = _by(is_worse, lower > 0.0, False) if is_known else OPEN
    return Difference(name, baseline.value, candidate.value, middle, lower, upper, people, people, says)


def _by(is_worse: bool, is_better: bool, is_close: bool) -> str:
    return WORSE if is_worse else BETTER if is_better else NOT_WORSE if is_close else OPEN


def _numbers(live: LiveShadow) -> Iterator[tuple[str, float]]:
    yield "pairs", float(live.pairs)
    if live.pairs:
        for name in ("overlap_at_10", "overlap_at_20", "rank_correlation", "tower_correlation", "click_probability"):
            yield name, getattr(live, f"sum_{name}") / live.pairs
        yield "baseline_click_probability", live.sum_baseline_click_probability / live.pairs
        yield "ms", live.sum_ms / live.pairs
        yield "baseline_ms", live.sum_baseline_ms / live.pairs


def _differences(evidence: ShadowEvidence, policy: ShadowPolicy) -> tuple[Difference, ...]:
    logged = evidence.logged
    return () if logged is None else tuple(_compared(logged, evidence.alpha / _TESTS, policy))


def _unvouched(limits: Sequence[Unlike], found: Sequence[Difference]) -> list[str]:
    return [each.reason for each in limits if each.witness.vouches(found) is None]


def _vouched(limits: Sequence[Unlike], found: Sequence[Difference]) -> Iterator[str]:
    for limit in limits:
        if (witness := limit.witness.vouches(found)) is not None:
            yield f"; {limit.reason}, yet it is {witness.verdict}: {_says(witness)}"


def _says(found: Difference) -> str:
    return f"{found.metric} {found.difference:+.4f}, surely within {found.lower:+.4f} … {found.upper:+.4f}"
