"""A rollout as a `ModelRollout` object of Kubernetes: columns, conditions to wait for, and Events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1.trainer_pb2 import Comparison, Rollout, RolloutKind, RolloutPhase, RolloutTransition

GROUP, VERSION, KIND, PLURAL = "headrace.io", "v1", "ModelRollout", "modelrollouts"
CONTROLLER = "headrace.io/registry"

_ENDED = {"Promoted", "RolledBack", "Superseded", "Inconclusive"}
# what whoever is on call should see among an object's events
_WARNINGS = {"RollingBack", "RolledBack", "Inconclusive"}
_KINDS = {RolloutKind.ROLLOUT_KIND_INCREMENT: "increment", RolloutKind.ROLLOUT_KIND_LINEAGE: "canary"}
# of the API
_NOTE_BYTES = 1_024


def model_rollout(rollout: Rollout, namespace: str) -> dict[str, Any]:
    """The object without its status; its name is the rollout's."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": rollout.rollout, "namespace": namespace},
        "spec": {
            "rollout": rollout.rollout,
            "release": rollout.release,
            "baseline": rollout.baseline,
            "lineage": rollout.lineage,
            "kind": _KINDS[rollout.kind],
        },
    }


def status_of(rollout: Rollout) -> dict[str, Any]:
    """The object's status: where the rollout stands."""
    phase = phase_word(rollout.phase)
    return {
        "phase": phase,
        "share": f"{rollout.share_bp / 100:g}%",
        "shareBasisPoints": rollout.share_bp,
        "step": _step(rollout),
        "reason": phase,
        "message": rollout.reason,
        "sequence": rollout.version,
        "startTime": _time(rollout.create_time),
        "transitionTime": _time(rollout.phase_time),
        "comparisons": [_comparison(one) for one in rollout.comparisons],
        "conditions": [_condition(kind, holds, rollout) for kind, holds in _conditions(phase).items()],
    }


def event_of(transition: RolloutTransition, namespace: str) -> dict[str, Any]:
    """The Event of a transition; its name is the transition's, so that it is told once."""
    to_phase = phase_word(transition.to_phase)
    note = transition.reason or to_phase
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{transition.rollout}.{transition.number}", "namespace": namespace},
        "eventTime": transition.time.ToDatetime(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "type": "Warning" if to_phase in _WARNINGS else "Normal",
        "reason": to_phase,
        "action": f"{phase_word(transition.from_phase)}To{to_phase}",
        "note": note.encode()[:_NOTE_BYTES].decode(errors="ignore"),
        "regarding": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "name": transition.rollout,
            "namespace": namespace,
        },
        "reportingController": CONTROLLER,
        "reportingInstance": transition.actor[:128] or "controller",
    }


def phase_word(phase: RolloutPhase.ValueType) -> str:
    """`ROLLOUT_PHASE_ROLLING_BACK` → `RollingBack`; `Idle` before the first."""
    if phase == RolloutPhase.ROLLOUT_PHASE_UNSPECIFIED:
        return "Idle"
    words = RolloutPhase.Name(phase).removeprefix("ROLLOUT_PHASE_").split("_")
    return "".join(word.capitalize() for word in words)


def _conditions(phase: str) -> dict[str, bool]:
    return {
        "Progressing": phase not in _ENDED and phase != "Paused",
        "Paused": phase == "Paused",
        "Promoted": phase == "Promoted",
        "RolledBack": phase == "RolledBack",
    }


def _condition(kind: str, holds: bool, rollout: Rollout) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "lastTransitionTime": _time(rollout.phase_time),
        "reason": phase_word(rollout.phase),
        "message": rollout.reason,
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "metric": one.metric,
        "baseline": one.stable,
        "candidate": one.canary,
        "difference": one.difference,
        "lower": one.lower,
        "upper": one.upper,
        "baselineUsers": one.stable_count,
        "candidateUsers": one.canary_count,
        "verdict": one.verdict,
    }


def _step(rollout: Rollout) -> int:
    """How many steps of the ramp were begun."""
    return sum(step <= rollout.share_bp for step in rollout.steps_bp)


def _time(time: Timestamp) -> str:
    return datetime.fromtimestamp(time.seconds, UTC).isoformat().replace("+00:00", "Z")
