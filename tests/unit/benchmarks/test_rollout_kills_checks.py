"""What must hold of rollouts under kills: a history that is whole passes, and each fault in one is named."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.rollout_kills_checks import (
    Answer,
    Plan,
    Told,
    chain_faults,
    implied,
    lateness_s,
    plan_faults,
    replay_faults,
    webhook_faults,
)
from headrace.model.arms import CANARY, STABLE, arm_of
from headrace.trainer.rollouts.commands import ABORT, CREATE, PROMOTE, RESUME
from headrace.trainer.rollouts.decisions import decide
from headrace.trainer.rollouts.evidence import LINEAGE, Command, Record
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Transition
from tests.unit.trainer.rollout_cases import POLICY, evidence

_SALTS = {"ro-000002": "salt"}
_IN, _OUT = (
    next(f"v:{number}" for number in range(100) if arm_of("salt", 5_000, f"v:{number}") == arm)
    for arm in (CANARY, STABLE)
)


def _ordered(number: int, rollout: int, order: str, phase: Phase, *, begins: bool = False, **changed: object):
    """A step that somebody asked for, a second after the one before."""
    found = evidence(phase, number, command=Command(order, "eve", ""), **changed)
    decision = decide(found, POLICY)
    before = None if begins else phase
    written = Record(found, POLICY, decision).written()
    return Transition(number, rollout, before, decision.to_phase, "eve", "", written, found.now_us)


def _first(number: int, order: str, phase: Phase, *, begins: bool = False) -> Transition:
    return _ordered(number, 1, order, phase, begins=begins, release="r-000001", baseline="")


def _second(number: int, order: str, phase: Phase, *, begins: bool = False, **changed: object) -> Transition:
    return _ordered(number, 2, order, phase, begins=begins, kind=LINEAGE, **changed)


# the first release serves; one of another lineage comes to half of the people, who are taken back from it
HISTORY = (
    _first(1, CREATE, Phase.VALIDATING, begins=True),
    _first(2, PROMOTE, Phase.SHADOWING),
    _second(3, CREATE, Phase.VALIDATING, begins=True),
    _second(4, RESUME, Phase.PAUSED, resumes_in=Phase.SHADOWING),
    _second(5, RESUME, Phase.PAUSED, resumes_in=Phase.CANARY, steps_bp=(5_000,)),
    _second(6, ABORT, Phase.CANARY),
)
PLANS = [
    Plan(),
    Plan(1, "r-000001"),
    Plan(2, "r-000001", "r-000002", "r-000002"),
    Plan(3, "r-000001", "r-000002", "", "ro-000002", 5_000),
    Plan(4, "r-000001"),
]


def _answer(at_s: float, key: str, track: str, release: str) -> Answer:
    return Answer(int(at_s * 1e6), int(at_s * 1e6) + 1_000, key, track, release)


def test_history_leads_to_plans() -> None:
    assert [plan for _, plan in implied(HISTORY)] == PLANS


def test_a_step_that_does_not_join_or_may_not_follow_is_named() -> None:
    [missing, illegal, *_] = chain_faults([], (HISTORY[0], HISTORY[1], replace(HISTORY[1], to_phase=Phase.SHADOWING)))
    assert "from shadowing, where it was validating" in missing
    assert "from shadowing, where it was promoting" in illegal
    assert any("may not follow" in fault for fault in chain_faults([], (replace(HISTORY[1], to_phase=Phase.PROMOTED),)))


def test_evidence_that_leads_elsewhere_is_named() -> None:
    assert not list(replay_faults(HISTORY))
    changed = replace(HISTORY[5], evidence=HISTORY[5].evidence.replace('"rolling-back"', '"canary"'))
    assert len(list(replay_faults([changed]))) == 1


def test_a_plan_that_history_does_not_lead_to_is_named_and_one_that_goes_back() -> None:
    plans = implied(HISTORY)
    told = [Told("a", PLANS[3]), Told("b", PLANS[1]), Told("b", PLANS[3]), Told("a", PLANS[4])]
    assert not list(plan_faults(plans, PLANS[4], told))
    assert len(list(plan_faults(plans, PLANS[3], told))) == 1
    assert len(list(plan_faults(plans, PLANS[4], [*told, Told("b", PLANS[1])]))) == 1
    assert len(list(plan_faults(plans, PLANS[4], [Told("a", replace(PLANS[3], share_bp=9))]))) == 1


def test_answers_by_releases_that_were_not_to_serve_are_found() -> None:
    plans = implied(HISTORY)
    assert lateness_s(plans, _SALTS, _answer(9, _OUT, STABLE, "r-000001")) == 0.0
    assert lateness_s(plans, _SALTS, _answer(5.5, _IN, CANARY, "r-000002")) == 0.0
    # two seconds after it was taken away, too soon, to somebody outside of the arm, and on the other track
    assert lateness_s(plans, _SALTS, _answer(8, _IN, CANARY, "r-000002")) == 2.0
    assert lateness_s(plans, _SALTS, _answer(4.5, _IN, CANARY, "r-000002")) is None
    assert lateness_s(plans, _SALTS, _answer(5.5, _OUT, CANARY, "r-000002")) is None
    assert lateness_s(plans, _SALTS, _answer(5.5, _IN, STABLE, "r-000002")) is None


def test_webhooks_that_are_missing_or_out_of_order_are_named() -> None:
    assert not list(webhook_faults([1, 2, 2, 1, 3, 4, 5, 6], HISTORY))
    assert len(list(webhook_faults([1, 2, 3, 4, 6, 5], HISTORY))) == 1
    assert len(list(webhook_faults([1, 2, 3, 4, 5], HISTORY))) == 1
    assert len(list(webhook_faults([1, 2, 3, 4, 5, 6, 7], HISTORY))) == 1
