"""Rules of rollouts: from evidence to a decision that can be made again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.runtime.errors import CorruptDataError, FailedPreconditionError
from headrace.trainer.analysis.evidence import ArmCounts, CanaryEvidence
from headrace.trainer.rollouts.decisions import decide, replay
from headrace.trainer.rollouts.evidence import LINEAGE, Command, RankersSeen, Record, Refusal, RolloutEvidence
from headrace.trainer.rollouts.phases import Phase
from tests.unit.trainer.rollout_cases import POLICY, canary, evidence, logged_shadow, shadow

_REFUSED = RankersSeen(2, 2, 0, (Refusal("ranker-1", "scores are not finite"),), 1_000.0)
_LOADED, _LOADING = RankersSeen(2, 2, 2), RankersSeen(2, 2, 1)
_WAITING = RankersSeen(stable=2, on_track=2, listened_s=1_000.0)
_NOBODY = RankersSeen(listened_s=1_000.0)


def _soak(errors: int) -> CanaryEvidence:
    before, after = ArmCounts(answers=1_000), ArmCounts(answers=1_000, errors=errors)
    return CanaryEvidence("ro-000001", 0, (10_000,), 0.1, 0.001, (), before, after)


# so that the gate is passed with what little there is: for trials
QUIET = replace(POLICY, quiet_s=10.0)

_CASES = {
    "parts being read": (evidence(Phase.VALIDATING), None),
    "faulty parts": (evidence(Phase.VALIDATING, fault="ranker.safetensors is not finite"), Phase.ROLLING_BACK),
    "sound parts": (evidence(Phase.VALIDATING, fault=""), Phase.SHADOWING),
    "the first of all": (evidence(Phase.VALIDATING, fault="", baseline=""), Phase.PROMOTING),
    "overtaken at once": (evidence(Phase.VALIDATING, fault="", newer="r-000003"), Phase.SUPERSEDED),
    "refused by a ranker": (evidence(Phase.SHADOWING, rankers=_REFUSED), Phase.ROLLING_BACK),
    "too little shadow": (evidence(Phase.SHADOWING, 1, shadow=shadow(3, seconds=1)), None),
    "enough live shadow, logged ones may come": (evidence(Phase.SHADOWING, 1, shadow=shadow(500, seconds=1)), None),
    "enough live shadow": (evidence(Phase.SHADOWING, 6, shadow=shadow(500, seconds=6)), Phase.PROMOTING),
    "enough, of a lineage that the canary track holds": (
        evidence(Phase.SHADOWING, 400, kind=LINEAGE, rankers=_LOADED, shadow=shadow(500, seconds=400)),
        Phase.CANARY,
    ),
    "one canary ranker still loads": (
        evidence(Phase.SHADOWING, 320, kind=LINEAGE, rankers=_LOADING, shadow=shadow(500, seconds=320)),
        None,
    ),
    "no canary ranker is there": (
        evidence(Phase.SHADOWING, 320, kind=LINEAGE, rankers=RankersSeen(2), shadow=shadow(500, seconds=320)),
        None,
    ),
    "no canary ranker ever comes": (
        evidence(Phase.SHADOWING, 331, kind=LINEAGE, rankers=RankersSeen(2), shadow=shadow(500, seconds=331)),
        Phase.INCONCLUSIVE,
    ),
    "fails at every request": (
        evidence(Phase.SHADOWING, 1, shadow=shadow(0, seconds=1, failures=5)),
        Phase.ROLLING_BACK,
    ),
    "less alike, and nothing is logged": (evidence(Phase.SHADOWING, 6, shadow=shadow(500, 0.7, seconds=6)), None),
    "less alike, and nothing ever is": (
        evidence(Phase.SHADOWING, 301, shadow=shadow(500, 0.7, seconds=301)),
        Phase.INCONCLUSIVE,
    ),
    "a lineage waits for both kinds": (
        evidence(Phase.SHADOWING, 6, kind=LINEAGE, shadow=shadow(500, seconds=6)),
        None,
    ),
    "shuffled, logged lists may vouch for it": (
        evidence(Phase.SHADOWING, 1, shadow=shadow(500, overlap=0.05, seconds=1)),
        None,
    ),
    "shuffled": (evidence(Phase.SHADOWING, 6, shadow=shadow(500, overlap=0.05, seconds=6)), Phase.ROLLING_BACK),
    "a shuffled lineage": (
        evidence(
            Phase.SHADOWING, 6, kind=LINEAGE, shadow=replace(shadow(500, overlap=0.05, seconds=6), is_increment=False)
        ),
        Phase.ROLLING_BACK,
    ),
    "not finite": (evidence(Phase.SHADOWING, 1, shadow=shadow(5, not_finite=1)), Phase.ROLLING_BACK),
    "enough is logged, and no ranker could load it yet": (
        evidence(Phase.SHADOWING, 6, rankers=_WAITING, shadow=logged_shadow(6)),
        None,
    ),
    "no ranker could ever load it": (
        evidence(Phase.SHADOWING, 31, rankers=_WAITING, shadow=logged_shadow(31)),
        Phase.ROLLING_BACK,
    ),
    "enough is logged, and a ranker holds it": (
        evidence(Phase.SHADOWING, 6, rankers=replace(_WAITING, with_shadow=1), shadow=logged_shadow(6)),
        Phase.PROMOTING,
    ),
    "no ranker took it": (evidence(Phase.PROMOTING, 31, rankers=_WAITING), Phase.ROLLING_BACK),
    "some rankers took it": (
        evidence(Phase.PROMOTING, 31, rankers=replace(_WAITING, with_release=1)),
        Phase.SOAKING,
    ),
    "no ranker took the first of all": (evidence(Phase.PROMOTING, 31, baseline="", rankers=_WAITING), Phase.SOAKING),
    "never enough": (evidence(Phase.SHADOWING, 301, shadow=shadow(3, seconds=301)), Phase.INCONCLUSIVE),
    "never known": (evidence(Phase.SHADOWING, 301), Phase.INCONCLUSIVE),
    "nobody is served": (evidence(Phase.SHADOWING, 6, rankers=_NOBODY, shadow=shadow(0, seconds=6)), Phase.PROMOTING),
    "nobody was heard of yet": (
        evidence(Phase.SHADOWING, 6, rankers=RankersSeen(listened_s=1.0), shadow=shadow(0, seconds=6)),
        None,
    ),
    "a lineage that nobody is served by": (
        evidence(Phase.SHADOWING, 6, kind=LINEAGE, rankers=_NOBODY, shadow=shadow(0, seconds=6)),
        None,
    ),
    "overtaken without evidence": (
        evidence(Phase.SHADOWING, 6, newer="r-000003", shadow=shadow(0, seconds=6)),
        Phase.SUPERSEDED,
    ),
    "evidence comes in": (evidence(Phase.SHADOWING, 6, newer="r-000003", shadow=shadow(9, seconds=6)), None),
    "outcomes unknown": (evidence(Phase.CANARY, 60, kind=LINEAGE), None),
    "outcomes never known": (evidence(Phase.CANARY, 1e8, kind=LINEAGE), Phase.INCONCLUSIVE),
    "as good": (evidence(Phase.CANARY, kind=LINEAGE, step=1, canary=canary(1.0, 4_000)), Phase.PROMOTING),
    "as good so far": (evidence(Phase.CANARY, kind=LINEAGE, canary=canary(1.0, 4_000, step=0)), Phase.CANARY),
    "worse": (evidence(Phase.CANARY, kind=LINEAGE, step=1, canary=canary(0.8, 4_000)), Phase.ROLLING_BACK),
    "few people": (evidence(Phase.CANARY, kind=LINEAGE, step=1, canary=canary(0.8, 10)), None),
    "errors": (
        evidence(Phase.CANARY, kind=LINEAGE, step=1, canary=canary(1.0, 4_000, errors=40_000)),
        Phase.ROLLING_BACK,
    ),
    "errors while paused": (
        evidence(Phase.PAUSED, kind=LINEAGE, step=1, resumes_in=Phase.CANARY, canary=canary(1.0, 4_000, errors=40_000)),
        Phase.ROLLING_BACK,
    ),
    "worse while paused": (
        evidence(Phase.PAUSED, kind=LINEAGE, step=1, resumes_in=Phase.CANARY, canary=canary(0.8, 4_000)),
        None,
    ),
    "not taken yet": (evidence(Phase.PROMOTING, 1, rankers=RankersSeen(2, 2, 1)), None),
    "taken": (evidence(Phase.PROMOTING, 1, rankers=RankersSeen(2, 2, 2)), Phase.SOAKING),
    "not taken in time": (evidence(Phase.PROMOTING, 31, rankers=RankersSeen(2, 2, 1)), Phase.SOAKING),
    "refused at last": (evidence(Phase.PROMOTING, 1, rankers=replace(_REFUSED, with_release=1)), Phase.ROLLING_BACK),
    "soaks": (evidence(Phase.SOAKING, 1, soak=_soak(0)), None),
    "soaked": (evidence(Phase.SOAKING, 6, soak=_soak(0)), Phase.PROMOTED),
    "errors after promotion": (evidence(Phase.SOAKING, 1, soak=_soak(100)), Phase.ROLLING_BACK),
    "errors of the first of all": (evidence(Phase.SOAKING, 1, baseline="", soak=_soak(100)), None),
    "inconclusive": (evidence(Phase.INCONCLUSIVE, 1e6), None),
    "inconclusive and overtaken": (evidence(Phase.INCONCLUSIVE, newer="r-000003"), Phase.SUPERSEDED),
    "an inconclusive lineage": (evidence(Phase.INCONCLUSIVE, kind=LINEAGE, newer="r-000003"), None),
    "still answered with": (evidence(Phase.ROLLING_BACK, 1, rankers=RankersSeen(2, 2, 1)), None),
    "gone": (evidence(Phase.ROLLING_BACK, 1), Phase.ROLLED_BACK),
    "over": (evidence(Phase.PROMOTED, 1e9), None),
}


@pytest.mark.parametrize("case", _CASES)
def test_where_a_rollout_goes(case: str) -> None:
    given, to_phase = _CASES[case]
    decision = decide(given, POLICY)
    assert (decision.to_phase if decision.moves else None) == to_phase
    assert decision.reason
    assert replay(Record(given, POLICY, decision).written())


def test_a_rollout_that_is_rolled_back_says_why_for_ever_after() -> None:
    decision = decide(evidence(Phase.ROLLING_BACK, 1, reason="gate 1 failed: order"), POLICY)

    assert (decision.to_phase, decision.reason) == (Phase.ROLLED_BACK, "gate 1 failed: order")


_COMMANDS = {
    ("promote", Phase.SHADOWING): Phase.PROMOTING,
    ("promote", Phase.CANARY): Phase.PROMOTING,
    ("promote", Phase.INCONCLUSIVE): Phase.PROMOTING,
    ("abort", Phase.CANARY): Phase.ROLLING_BACK,
    ("abort", Phase.SOAKING): Phase.ROLLING_BACK,
    ("abort", Phase.PAUSED): Phase.ROLLING_BACK,
    ("pause", Phase.SHADOWING): Phase.PAUSED,
    ("pause", Phase.SOAKING): Phase.PAUSED,
    ("resume", Phase.PAUSED): Phase.CANARY,
    ("resume", Phase.INCONCLUSIVE): Phase.SHADOWING,
    ("undo", Phase.PROMOTED): Phase.ROLLING_BACK,
    ("undo", Phase.SOAKING): Phase.ROLLING_BACK,
    ("supersede", Phase.CANARY): Phase.SUPERSEDED,
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", ["promote", "abort", "pause", "resume", "undo", "supersede"])
def test_what_is_asked_for_is_done_or_refused(name: str, phase: Phase) -> None:
    resumes_in = Phase.CANARY if phase == Phase.PAUSED else None
    given = evidence(phase, resumes_in=resumes_in, kind=LINEAGE, command=Command(name, "eve", "a reason"))
    if (name, phase) in _COMMANDS:
        decision = decide(given, POLICY)
        assert decision.to_phase == _COMMANDS[name, phase]
        assert decision.reason.endswith("a reason")
    elif phase in (Phase.ROLLED_BACK, Phase.SUPERSEDED, Phase.ROLLING_BACK):
        with pytest.raises(FailedPreconditionError):
            decide(given, POLICY)


def test_gate_1_can_be_left_out_for_increments_alone() -> None:
    trial = replace(POLICY, increment_gate_one=False)
    assert decide(evidence(Phase.SHADOWING, shadow=shadow(0)), trial).to_phase == Phase.PROMOTING
    assert not decide(evidence(Phase.SHADOWING, kind=LINEAGE, shadow=shadow(0)), trial).moves


def test_gate_0_cannot_be_passed_by_hand() -> None:
    with pytest.raises(FailedPreconditionError, match="gate 0"):
        decide(evidence(Phase.VALIDATING, command=Command("promote", "eve", "")), POLICY)
    paused = evidence(Phase.PAUSED, resumes_in=Phase.VALIDATING, command=Command("promote", "eve", ""))
    with pytest.raises(FailedPreconditionError, match="gate 0"):
        decide(paused, POLICY)


def test_a_decision_that_was_not_made_by_the_rules_does_not_replay() -> None:
    given = evidence(Phase.SHADOWING, 1, shadow=shadow(500, overlap=0.05, seconds=1))
    forged = replace(decide(given, POLICY), to_phase=Phase.PROMOTING)
    assert not replay(Record(given, POLICY, forged).written())
    with pytest.raises(CorruptDataError):
        replay("{}")


def test_evidence_comes_back_as_it_was() -> None:
    given: RolloutEvidence = evidence(Phase.CANARY, 0.1, kind=LINEAGE, step=1, canary=canary(0.9173, 4_321))
    record = Record(given, POLICY, decide(given, POLICY))
    assert Record.read(record.written()) == record


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (evidence(Phase.SHADOWING, 9, shadow=shadow(3, seconds=9)), Phase.SHADOWING),
        (evidence(Phase.SHADOWING, 11, shadow=shadow(3, seconds=11)), Phase.PROMOTING),
        (evidence(Phase.SHADOWING, 11, newer="r-000003", shadow=shadow(0, seconds=11)), Phase.PROMOTING),
        (evidence(Phase.SHADOWING, 11, shadow=shadow(5, not_finite=1, seconds=11)), Phase.ROLLING_BACK),
        (evidence(Phase.SHADOWING, 11, kind=LINEAGE, shadow=shadow(3, seconds=11)), Phase.SHADOWING),
    ],
)
def test_where_few_ask_a_trial_lets_increments_pass_without_harm_after_a_while(
    given: RolloutEvidence, expected: Phase
) -> None:
    decision = decide(given, QUIET)
    assert decision.to_phase == expected
    assert replay(Record(given, QUIET, decision).written())


def test_a_trial_lets_no_order_pass_that_waits_for_what_was_logged_to_vouch_for_it() -> None:
    patient = replace(QUIET, one_kind_s=20.0)
    given = evidence(Phase.SHADOWING, 11, shadow=shadow(500, overlap=0.05, seconds=11))
    assert decide(given, patient).to_phase == Phase.SHADOWING
