"""Gate 2's verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace.runtime.errors import CorruptDataError
from headrace.trainer.analysis.evidence import CanaryEvidence, CanaryVerdict, Moments
from headrace.trainer.analysis.policy import CLICKS, CanaryPolicy
from headrace.trainer.analysis.verdict import canary_verdict, guardrail_verdict
from headrace.trainer.analysis.written import read, written

Canary = Callable[..., CanaryEvidence]

POLICY = CanaryPolicy()


def test_a_release_that_is_no_worse_is_promoted_at_the_last_step(canary: Canary) -> None:
    evidence = canary(0.0, people=20_000)
    assert canary_verdict(evidence, POLICY).decision == "promote"
    earlier = replace(evidence, steps_bp=(5_000, 10_000))
    assert canary_verdict(earlier, POLICY).decision == "advance"


def test_a_better_release_is_said_to_be_better(canary: Canary) -> None:
    verdict = canary_verdict(canary(0.3), POLICY)
    assert verdict.decision == "promote"
    assert verdict.differences[0].verdict == "better"


def test_harm_rolls_back_whatever_the_other_metrics_say(canary: Canary) -> None:
    good, bad = canary(0.3), canary(-0.3)
    mixed = replace(good, metrics=(*good.metrics[:1], *bad.metrics[1:]))
    verdict = canary_verdict(mixed, POLICY)
    assert verdict.decision == "roll back"
    assert verdict.reason.startswith("carts_per_visit")


def test_few_people_tell_nothing(canary: Canary) -> None:
    verdict = canary_verdict(canary(-0.9, people=50), POLICY)
    assert verdict.decision == "go on"
    assert {one.verdict for one in verdict.differences} == {"open"}


def test_no_data_is_no_verdict_and_in_the_end_inconclusive(canary: Canary) -> None:
    empty = replace(
        canary(), metrics=tuple(replace(one, stable=Moments(), canary=Moments()) for one in canary().metrics)
    )
    assert canary_verdict(empty, POLICY).decision == "go on"
    assert canary_verdict(replace(empty, hours=POLICY.most_hours), POLICY).decision == "inconclusive"


def test_a_canary_in_which_nothing_happens_is_rolled_back(canary: Canary) -> None:
    evidence = canary()
    silent = tuple(
        replace(
            one,
            canary=replace(
                one.canary, sums=(0.0, *one.canary.sums[1:]), products=(0.0, 0.0, 0.0, 0.0, *one.canary.products[4:])
            ),
        )
        for one in evidence.metrics
    )
    assert canary_verdict(replace(evidence, metrics=silent), POLICY).decision == "roll back"


@pytest.mark.parametrize("change", [-0.3, -0.05, 0.0, 0.3])
def test_evidence_that_was_kept_gives_the_same_verdict_to_the_bit(canary: Canary, change: float) -> None:
    evidence = canary(change)
    verdict = canary_verdict(evidence, POLICY)
    again = canary_verdict(read(CanaryEvidence, written(evidence)), read(CanaryPolicy, written(POLICY)))
    assert read(CanaryVerdict, written(verdict)) == again == verdict
    assert written(again) == written(verdict)


def test_evidence_with_a_column_missing_is_refused(canary: Canary) -> None:
    with pytest.raises(CorruptDataError, match="alpha"):
        read(CanaryEvidence, written(canary()).replace('"alpha"', '"alfa"'))


@pytest.mark.parametrize(
    ("changed", "decision", "metric"),
    [
        ({"fallbacks": 150}, "go on", ""),
        ({"fallbacks": 250}, "inconclusive", "fallback_share"),
        ({"fallbacks": 2_500}, "roll back", "fallback_share"),
        ({"errors": 150}, "roll back", "error_share"),
        ({"latency": (0, 0, 0, 5_000, 4_000, 0, 0, 0, 1_000, 0, 0)}, "roll back", "latency_p99_ms"),
        ({"people": 1_500}, "roll back", "sample_ratio"),
        ({"predicted": 3_000.0, "clicked": 1_000.0}, "roll back", "calibration"),
        ({"predicted": 1_500.0, "clicked": 1_000.0}, "go on", ""),
    ],
)
def test_guardrails_fire_by_themselves(canary: Canary, changed: dict[str, Any], decision: str, metric: str) -> None:
    evidence = canary()
    stable = replace(evidence.stable, predicted=1_000.0, clicked=1_000.0)
    evidence = replace(evidence, stable=stable, canary=replace(evidence.canary, **changed))
    verdict = guardrail_verdict(evidence, POLICY)
    assert verdict.decision == decision
    assert [one.metric for one in verdict.differences] == ([metric] if metric else [])
    if metric:
        assert canary_verdict(evidence, POLICY).decision == decision


def test_few_answers_fire_no_guardrail(canary: Canary) -> None:
    evidence = canary()
    few = replace(evidence.canary, answers=100, fallbacks=100, errors=100)
    assert guardrail_verdict(replace(evidence, canary=few), POLICY).decision == "go on"


def test_alpha_is_shared_out_over_steps_and_metrics(canary: Canary) -> None:
    one, three = canary(-0.1), canary(-0.1, steps_bp=(5_000, 5_000, 5_000))
    clicks = [canary_verdict(evidence, POLICY).differences[0] for evidence in (one, three)]
    assert {difference.metric for difference in clicks} == {CLICKS}
    assert clicks[1].upper > clicks[0].upper
