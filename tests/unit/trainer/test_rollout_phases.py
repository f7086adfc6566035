"""Any sequence of commands and evidence leaves a rollout in a legal phase, and every decision replays."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.runtime.errors import FailedPreconditionError
from headrace.trainer.rollouts.decisions import decide, replay
from headrace.trainer.rollouts.evidence import (
    INCREMENT,
    LINEAGE,
    Command,
    RankersSeen,
    Record,
    Refusal,
    RolloutEvidence,
)
from headrace.trainer.rollouts.phases import PROMOTION, RUNNING, TERMINAL, Phase, may_follow
from tests.unit.trainer.rollout_cases import POLICY, canary, evidence, shadow

_COMMANDS = ["promote", "abort", "pause", "resume", "undo", "supersede"]
_refusals = st.sampled_from([(), (Refusal("ranker-1", "not finite"),)])
_seen = st.builds(
    RankersSeen,
    stable=st.integers(0, 3),
    on_track=st.integers(0, 3),
    with_release=st.integers(0, 3),
    refusals=_refusals,
    listened_s=st.floats(0, 1_000),
)
_canaries = st.builds(
    canary,
    clicks=st.sampled_from([0.5, 0.9, 1.0, 1.2]),
    people=st.sampled_from([0, 50, 5_000]),
    errors=st.sampled_from([0, 100_000]),
    hours=st.sampled_from([0.1, 48.0, 1e6]),
    step=st.just(0),
)
_shadows = st.builds(
    shadow,
    pairs=st.integers(0, 300),
    overlap=st.floats(0, 1),
    seconds=st.floats(0, 1_000),
    not_finite=st.sampled_from([0, 0, 0, 1]),
)
_looks = st.fixed_dictionaries(
    {
        "rankers": _seen,
        "newer": st.sampled_from(["", "r-000003"]),
        "fault": st.sampled_from([None, "", "", "not finite"]),
        "shadow": st.none() | _shadows,
        "canary": st.none() | _canaries,
        "soak": st.none() | _canaries,
        "elapsed_s": st.floats(0, 1e7),
        "command": st.none() | st.builds(Command, st.sampled_from(_COMMANDS), st.just("eve"), st.just("why")),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([INCREMENT, LINEAGE]), st.sampled_from(["", "r-000001"]), st.lists(_looks, max_size=12))
def test_every_rollout_stays_within_the_law(kind: str, baseline: str, looks: list[dict[str, object]]) -> None:
    rollout = evidence(Phase.VALIDATING, kind=kind, baseline=baseline)
    for look in looks:
        rollout = _next(rollout, dict(look))
    assert rollout.phase in Phase
    assert (rollout.phase == Phase.PAUSED) == (rollout.resumes_in is not None)


def _next(rollout: RolloutEvidence, look: dict[str, object]) -> RolloutEvidence:
    now_us = rollout.now_us + int(float(str(look.pop("elapsed_s"))) * 1e6)
    given = replace(rollout, now_us=now_us, **look)  # type: ignore[arg-type]
    if given.canary is not None:
        given = replace(given, canary=replace(given.canary, step=given.step))
    try:
        decision = decide(given, POLICY)
    except FailedPreconditionError:
        assert given.command is not None
        return rollout
    if not decision.moves:
        assert decision.to_phase == rollout.phase
        return rollout
    assert may_follow(decision.to_phase, rollout.phase)
    assert replay(Record(given, POLICY, decision).written())
    assert decision.step < len(rollout.steps_bp)
    return replace(
        rollout,
        now_us=now_us,
        phase=decision.to_phase,
        phase_time_us=now_us,
        resumes_in=decision.resumes_in,
        step=decision.step,
    )


def test_what_is_over_stays_over_but_for_an_undo() -> None:
    for phase in TERMINAL:
        assert {after for after in Phase if may_follow(after, phase)} <= {Phase.ROLLING_BACK}


def test_every_running_phase_can_be_paused_and_gone_on_with() -> None:
    for phase in RUNNING:
        assert may_follow(Phase.PAUSED, phase)
        assert may_follow(phase, Phase.PAUSED)
        assert may_follow(Phase.ROLLING_BACK, phase)


def test_what_serves_everybody_can_only_be_kept_or_taken_back() -> None:
    for phase in PROMOTION:
        assert not may_follow(Phase.SUPERSEDED, phase)
        assert not may_follow(Phase.INCONCLUSIVE, phase)
