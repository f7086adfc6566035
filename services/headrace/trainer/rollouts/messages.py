"""Rollouts as messages, and reports of rankers from messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

from headrace.model.arms import CANARY, STABLE
from headrace.runtime.errors import Faults
from headrace.trainer.analysis.evidence import LATENCY_BOUNDS_MS, ArmCounts, Difference, LiveShadow
from headrace.trainer.messages import timestamp
from headrace.trainer.registry import name_of
from headrace.trainer.rollouts.evidence import LINEAGE, GateFinding
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.reports import ArmSums, RankerReport, ShadowSums
from headrace.trainer.rollouts.rollout import Rollout, Transition, rollout_name
from headrace.v1 import trainer_pb2

_MAX_NAME = 200
_MAX_ARMS = 1_000
_COLUMNS = len(LATENCY_BOUNDS_MS) + 1


def rollout_message(rollout: Rollout) -> trainer_pb2.Rollout:
    kind = trainer_pb2.ROLLOUT_KIND_LINEAGE if rollout.kind == LINEAGE else trainer_pb2.ROLLOUT_KIND_INCREMENT
    return trainer_pb2.Rollout(
        rollout=rollout.name,
        kind=kind,
        phase=phase_message(rollout.phase),
        release=name_of(rollout.release),
        baseline=name_of(rollout.baseline) if rollout.baseline else "",
        lineage=rollout.lineage,
        share_bp=rollout.share_bp,
        steps_bp=rollout.steps_bp,
        reason=rollout.reason,
        gates=[_gate(gate) for gate in rollout.gates],
        comparisons=[_comparison(each) for each in rollout.comparisons],
        create_time=timestamp(rollout.create_time_us),
        phase_time=timestamp(rollout.phase_time_us),
        version=rollout.version,
        resumes_in=phase_message(rollout.resumes_in),
    )


def transition_message(transition: Transition) -> trainer_pb2.RolloutTransition:
    return trainer_pb2.RolloutTransition(
        number=transition.number,
        rollout=rollout_name(transition.rollout),
        from_phase=phase_message(transition.from_phase),
        to_phase=phase_message(transition.to_phase),
        actor=transition.actor,
        reason=transition.reason,
        evidence=transition.evidence,
        time=timestamp(transition.time_us),
    )


def phase_message(phase: Phase | None) -> trainer_pb2.RolloutPhase.ValueType:
    name = phase.value.upper().replace("-", "_") if phase else "UNSPECIFIED"
    return trainer_pb2.RolloutPhase.Value(f"ROLLOUT_PHASE_{name}")


def ranker_report(request: trainer_pb2.ReportServingRequest, received_us: int) -> RankerReport:
    """What a ranker said. InvalidRequestError names every fault."""
    faults = Faults()
    faults.check(0 < len(request.ranker) <= _MAX_NAME, "ranker", f"must have 1..{_MAX_NAME} characters")
    faults.check(request.HasField("start_time"), "start_time", "is missing")
    tracks = (STABLE, CANARY)
    faults.check(request.track in tracks, "track", f"must be {' or '.join(tracks)}, got {request.track!r}")
    faults.check(len(request.arms) <= _MAX_ARMS, "arms", f"must be at most {_MAX_ARMS}, got {len(request.arms)}")
    for at, arm in enumerate(request.arms):
        _check_arm(faults, f"arms[{at}]", arm)
    if request.HasField("shadow"):
        _check_shadow(faults, request.shadow)
    faults.raise_if_any()
    return RankerReport(
        ranker=request.ranker,
        start_us=request.start_time.ToMicroseconds(),
        received_us=received_us,
        track=request.track,
        plan_sequence=request.plan_sequence,
        release=request.release,
        refused_release=request.refused_release,
        refused_reason=request.refused_reason,
        arms=tuple(_arm(arm) for arm in request.arms),
        shadow=_shadow(request.shadow) if request.HasField("shadow") else None,
    )


def _check_arm(faults: Faults, path: str, arm: trainer_pb2.ArmReport) -> None:
    known = ("", STABLE, CANARY)
    faults.check(arm.arm in known, f"{path}.arm", f"must be {STABLE}, {CANARY} or empty, got {arm.arm!r}")
    columns = len(arm.latency)
    faults.check(columns in (0, _COLUMNS), f"{path}.latency", f"must have {_COLUMNS} numbers, got {columns}")
    for name in ("answers", "errors", "degraded"):
        _check_sum(faults, f"{path}.{name}", getattr(arm, name))
    for reason, count in arm.fallbacks.items():
        _check_sum(faults, f"{path}.fallbacks[{reason}]", count)
    for count in arm.latency:
        _check_sum(faults, f"{path}.latency", count)


def _check_shadow(faults: Faults, shadow: trainer_pb2.ShadowReport) -> None:
    for field in fields(LiveShadow):
        value = getattr(shadow, field.name)
        faults.check(math.isfinite(value), f"shadow.{field.name}", f"must be finite, got {value}")
    for name in ("pairs", "not_finite", "failures"):
        _check_sum(faults, f"shadow.{name}", getattr(shadow, name))


def _check_sum(faults: Faults, path: str, value: int) -> None:
    faults.check(value >= 0, path, f"must not be negative, got {value}")


def _arm(arm: trainer_pb2.ArmReport) -> ArmSums:
    latency: Sequence[int] = arm.latency or (0,) * _COLUMNS
    counts = ArmCounts(
        answers=arm.answers, fallbacks=sum(arm.fallbacks.values()), errors=arm.errors, latency=tuple(latency)
    )
    return ArmSums(arm.rollout, arm.arm, counts)


def _shadow(shadow: trainer_pb2.ShadowReport) -> ShadowSums:
    sums = {field.name: getattr(shadow, field.name) for field in fields(LiveShadow)}
    return ShadowSums(shadow.release, shadow.baseline, LiveShadow(**sums))


def _gate(gate: GateFinding) -> trainer_pb2.GateVerdict:
    return trainer_pb2.GateVerdict(
        gate=gate.gate, passed=gate.passed, reason=gate.reason, numbers=dict(gate.numbers), time=timestamp(gate.time_us)
    )


def _comparison(each: Difference) -> trainer_pb2.Comparison:
    return trainer_pb2.Comparison(
        metric=each.metric,
        stable=each.stable,
        canary=each.canary,
        difference=each.difference,
        lower=each.lower,
        upper=each.upper,
        stable_count=each.stable_count,
        canary_count=each.canary_count,
        verdict=each.verdict,
    )
