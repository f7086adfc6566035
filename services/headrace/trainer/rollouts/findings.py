"""Decisions put together: to another phase, by its law, or to stay."""

from __future__ import annotations

from headrace.runtime.errors import FailedPreconditionError
from headrace.trainer.analysis.evidence import Difference
from headrace.trainer.rollouts.evidence import Decision, GateFinding, RolloutEvidence
from headrace.trainer.rollouts.phases import Phase, may_follow


def move(
    evidence: RolloutEvidence,
    phase: Phase,
    reason: str,
    found: GateFinding | None = None,
    comparisons: tuple[Difference, ...] = (),
    *,
    step: int | None = None,
    resumes_in: Phase | None = None,
    target: str = "",
) -> Decision:
    """On to `phase`. FailedPreconditionError: it may not follow the one that the rollout is in."""
    if not may_follow(phase, evidence.phase):
        raise FailedPreconditionError(f"a rollout that is {evidence.phase} cannot become {phase}")
    gates = (found,) if found else ()
    at = evidence.step if step is None else step
    return Decision(phase, True, reason, at, resumes_in, gates, comparisons, target)


def stay(evidence: RolloutEvidence, reason: str, comparisons: tuple[Difference, ...] = ()) -> Decision:
    """No change; the reason tells what is waited for."""
    return Decision(evidence.phase, False, reason, evidence.step, evidence.resumes_in, (), comparisons)
