"""Rollouts and their transitions as rows, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from headrace.trainer.analysis.evidence import Difference
from headrace.trainer.rollouts.evidence import Decision, GateFinding, Record
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Rollout, Transition
from headrace.trainer.tables import RolloutRow, TransitionRow


def gates_after(rollout: Rollout, decision: Decision) -> list[dict[str, Any]]:
    """The newest finding of each gate."""
    kept = {gate.gate: gate for gate in (*rollout.gates, *decision.gates)}
    return [asdict(gate) for _, gate in sorted(kept.items())]


def transition_row(number: int, before: str, record: Record, actor: str) -> TransitionRow:
    return TransitionRow(
        rollout_number=number,
        from_phase=before,
        to_phase=record.decision.to_phase,
        actor=actor,
        reason=record.decision.reason,
        evidence=record.written(),
        time_us=record.evidence.now_us,
    )


def transition_of(row: TransitionRow) -> Transition:
    before = Phase(row.from_phase) if row.from_phase else None
    return Transition(
        row.number, row.rollout_number, before, Phase(row.to_phase), row.actor, row.reason, row.evidence, row.time_us
    )


def rollout_of(row: RolloutRow) -> Rollout:
    return Rollout(
        number=row.number,
        kind=row.kind,
        track=row.track,
        feeds=row.feeds,
        phase=Phase(row.phase),
        resumes_in=Phase(row.resumes_in) if row.resumes_in else None,
        release=row.release_number,
        baseline=row.baseline_number,
        lineage=row.lineage,
        salt=row.salt,
        alpha=row.alpha,
        share_bp=row.share_bp,
        step=row.step,
        step_time_us=row.step_time_us,
        steps_bp=tuple(row.steps_bp),
        reason=row.reason,
        gates=tuple(_gate(gate) for gate in row.gates),
        comparisons=tuple(Difference(**each) for each in row.comparisons),
        marks=row.marks,
        create_time_us=row.create_time_us,
        phase_time_us=row.phase_time_us,
        version=row.version,
    )


def _gate(written: dict[str, Any]) -> GateFinding:
    numbers = tuple((str(name), float(value)) for name, value in written["numbers"])
    return GateFinding(written["gate"], written["passed"], written["reason"], numbers, written["time_us"])
