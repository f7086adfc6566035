"""Gate 1's verdicts."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from headrace.trainer.analysis.evidence import Kept, LiveShadow, PairedMean, ShadowEvidence, ShadowVerdict, Value
from headrace.trainer.analysis.gate_one import logged_evidence, shadow_verdict
from headrace.trainer.analysis.policy import ShadowPolicy
from headrace.trainer.analysis.written import read, written

POLICY = ShadowPolicy()
NO_DIFFERENCE = PairedMean(0.41, 0.41, 0.0, 0.002, 1_000)
SHUFFLED = LiveShadow(500, 125.0, 250.0, 4.0, 4.0, 50.0, 50.0, 0, 0, 500.0, 500.0)


def test_a_sound_release_passes(shadow: ShadowEvidence) -> None:
    verdict = shadow_verdict(shadow, POLICY)
    assert verdict.decision == "pass"
    assert verdict.differences[0].verdict == "better"
    assert dict(verdict.numbers)["overlap_at_20"] == 0.9


def test_where_nobody_clicks_a_release_that_thinks_clicks_likelier_is_no_worse(shadow: ShadowEvidence) -> None:
    logged = shadow.logged
    assert logged is not None
    likelier = replace(logged, click_loss=PairedMean(0.02, 0.015, 0.005, 0.0001, 1_000))
    nobody = replace(likelier, order_loss=PairedMean(0.0, 0.0, 0.0, 0.0, 0))
    decisions = [shadow_verdict(replace(shadow, logged=each), POLICY).decision for each in (likelier, nobody)]
    assert decisions == ["stop", "pass"]


@pytest.mark.parametrize("is_increment", [True, False])
def test_shuffled_scores_are_stopped_by_either_kind_of_evidence(shadow: ShadowEvidence, is_increment: bool) -> None:
    logged = shadow.logged
    assert logged is not None
    live = replace(shadow, is_increment=is_increment, live=SHUFFLED, logged=None, seconds=POLICY.most_seconds)
    shuffled = replace(logged, rank_agreement=0.02, order_loss=NO_DIFFERENCE)
    of_log = replace(shadow, is_increment=is_increment, live=LiveShadow(), logged=shuffled)
    assert [shadow_verdict(one, POLICY).decision for one in (live, of_log)] == ["stop", "stop"]


@pytest.mark.parametrize(("correlation", "decision"), [(0.9, "pass"), (0.1, "stop"), (-0.9, "stop")])
def test_user_towers_of_another_space_or_sign_are_stopped_by_live_requests_alone(
    shadow: ShadowEvidence, correlation: float, decision: str
) -> None:
    live = replace(shadow.live, sum_tower_correlation=correlation * shadow.live.pairs)
    assert shadow_verdict(replace(shadow, live=live, logged=None, seconds=1e9), POLICY).decision == decision


def test_another_lineage_may_order_otherwise_and_an_increment_may_not(shadow: ShadowEvidence) -> None:
    assert shadow.logged is not None
    other = replace(
        shadow,
        live=replace(shadow.live, sum_overlap_at_20=150.0, sum_rank_correlation=150.0),
        logged=replace(shadow.logged, order_loss=NO_DIFFERENCE),
    )
    assert shadow_verdict(replace(other, is_increment=False), POLICY).decision == "pass"
    assert shadow_verdict(other, POLICY).decision == "stop"


def test_what_was_logged_vouches_for_an_order_that_is_unlike_what_serves_and_surely_better(
    shadow: ShadowEvidence,
) -> None:
    # as after an undo to a release that had learned little
    assert shadow.logged is not None
    far = replace(shadow.live, sum_overlap_at_20=50.0, sum_rank_correlation=-50.0)
    better = replace(shadow, live=far, logged=replace(shadow.logged, rank_agreement=0.1))
    verdict = shadow_verdict(better, POLICY)
    assert verdict.decision == "pass"
    assert "rank_correlation is -0.100, below 0.5, yet it is better: order_loss" in verdict.reason
    few = replace(better, logged=replace(better.logged, people=60, order_loss=PairedMean(0.4, 0.41, -0.01, 0.002, 60)))
    assert [shadow_verdict(replace(few, seconds=each), POLICY).decision for each in (60.0, 1e9)] == ["go on", "stop"]
    # the order vouches for no tower
    towers = replace(better, live=replace(far, sum_tower_correlation=-100.0))
    assert shadow_verdict(towers, POLICY).decision == "stop"


def test_towers_that_find_surely_as_much_may_point_elsewhere(shadow: ShadowEvidence) -> None:
    assert shadow.logged is not None
    elsewhere = replace(shadow.live, sum_tower_correlation=50.0)
    gained = replace(shadow.logged, towers=Kept(1_000, 300, 500, 20, 220))
    verdict = shadow_verdict(replace(shadow, live=elsewhere, logged=gained), POLICY)
    assert (verdict.decision, "towers_kept" in verdict.reason) == ("pass", True)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("click_loss", PairedMean(0.45, 0.41, 0.04, 0.002, 1_000), "click_loss"),
        ("order_loss", PairedMean(0.45, 0.41, 0.04, 0.002, 1_000), "order_loss"),
        ("towers", Kept(1_000, 300, 180, 150, 30), "towers_kept"),
        ("not_finite", 1, "not finite"),
    ],
)
def test_harm_in_what_was_logged_stops(shadow: ShadowEvidence, field: str, value: Any, reason: str) -> None:
    assert shadow.logged is not None
    verdict = shadow_verdict(replace(shadow, logged=replace(shadow.logged, **{field: value})), POLICY)
    assert verdict.decision == "stop"
    assert reason in verdict.reason


def test_a_release_that_fails_every_request_is_stopped_though_it_makes_no_pair(shadow: ShadowEvidence) -> None:
    def decision(pairs: int, failures: int) -> str:
        live = LiveShadow(pairs, *([0.9 * pairs] * 4), failures=failures)
        return shadow_verdict(replace(shadow, live=live, logged=None), POLICY).decision

    assert decision(0, 4) == "go on"
    assert [decision(0, 5), decision(20, 5), decision(100, 2)] == ["stop"] * 3
    # one in a hundred may be an accident
    assert decision(500, 5) == "go on"


@pytest.mark.parametrize("is_increment", [True, False])
def test_towers_that_point_elsewhere_are_stopped_whatever_the_order(shadow: ShadowEvidence, is_increment: bool) -> None:
    lost = replace(shadow, is_increment=is_increment, live=replace(shadow.live, sum_tower_correlation=-100.0))
    verdict = shadow_verdict(lost, POLICY)
    assert (verdict.decision, "tower_correlation is -0.200" in verdict.reason) == ("stop", True)


def test_an_order_that_is_less_alike_needs_what_was_logged(shadow: ShadowEvidence) -> None:
    # what shuffled weights may look like, and what a release may that learned much at once
    unlike = replace(shadow, live=replace(shadow.live, sum_rank_correlation=0.56 * 500), seconds=POLICY.most_seconds)
    assert shadow_verdict(replace(unlike, logged=None), POLICY).decision == "inconclusive"
    assert shadow_verdict(unlike, POLICY).decision == "pass"
    assert shadow_verdict(replace(unlike, logged=None, is_increment=False), POLICY).decision == "pass"
    assert shadow.logged is not None
    worse = replace(shadow.logged, order_loss=PairedMean(0.45, 0.41, 0.04, 0.002, 1_000))
    assert shadow_verdict(replace(unlike, logged=worse), POLICY).decision == "stop"


def test_a_lower_value_stops_where_both_estimators_say_so(shadow: ShadowEvidence) -> None:
    low = Value(0.5, 0.4, 0.6, 500.0)
    assert shadow.logged is not None
    by_model = replace(shadow, logged=replace(shadow.logged, doubly_robust=low))
    by_both = replace(shadow, logged=replace(shadow.logged, doubly_robust=low, snips=low))
    assert shadow_verdict(by_model, POLICY).decision == "pass"
    verdict = shadow_verdict(by_both, POLICY)
    assert (verdict.decision, "off_policy_value" in verdict.reason) == ("stop", True)


def test_a_loss_that_is_higher_by_chance_does_not_stop(shadow: ShadowEvidence) -> None:
    assert shadow.logged is not None
    unlucky = PairedMean(0.415, 0.41, 0.005, 0.002, 1_000)
    assert shadow_verdict(replace(shadow, logged=replace(shadow.logged, click_loss=unlucky)), POLICY).decision == "pass"


def test_a_value_that_rests_on_few_lists_is_not_read(shadow: ShadowEvidence) -> None:
    assert shadow.logged is not None
    thin = replace(shadow.logged, doubly_robust=Value(0.5, 0.4, 0.6, 9.0))
    assert shadow_verdict(replace(shadow, logged=thin), POLICY).decision == "pass"


def test_both_kinds_are_waited_for_until_the_time_is_up(shadow: ShadowEvidence) -> None:
    quiet = replace(shadow, live=LiveShadow())
    assert shadow_verdict(quiet, POLICY).decision == "go on"
    assert shadow_verdict(replace(quiet, seconds=POLICY.most_seconds), POLICY).decision == "pass"
    nothing = replace(quiet, logged=None, seconds=POLICY.most_seconds)
    assert shadow_verdict(nothing, POLICY).decision == "inconclusive"


def test_evidence_that_was_kept_gives_the_same_verdict(shadow: ShadowEvidence) -> None:
    verdict = shadow_verdict(shadow, POLICY)
    assert shadow_verdict(read(ShadowEvidence, written(shadow)), POLICY) == verdict
    assert read(ShadowVerdict, written(verdict)) == verdict


def test_logged_evidence_is_read_from_what_tells_more(shadow: ShadowEvidence) -> None:
    assert shadow.logged is not None
    assert logged_evidence(asdict(shadow.logged) | {"candidate": "r-000002", "rows": 9}) == shadow.logged
