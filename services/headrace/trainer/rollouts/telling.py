"""Says what happens to rollouts: one line and one count a step."""

from __future__ import annotations

import logging

from headrace.runtime.telemetry import counter
from headrace.trainer.registry import name_of
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Rollout

log = logging.getLogger(__name__)

_transitions = counter("headrace.trainer.rollout.transitions", "{transition}", "steps of rollouts, by phase and kind")


def note_step(before: Phase | None, rollout: Rollout) -> None:
    """Says that a rollout took a step."""
    _transitions.add(1, {"phase": rollout.phase.value, "kind": rollout.kind})
    facts = {"rollout": rollout.name, "release": name_of(rollout.release), "from": before.value if before else ""}
    log.info("rollout_moved", extra=facts | {"to": rollout.phase.value, "reason": rollout.reason})
