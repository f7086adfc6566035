"""What people ask of a rollout, whatever the evidence says: allowed or refused by its phase alone."""

from __future__ import annotations

from headrace.runtime.errors import FailedPreconditionError
from headrace.trainer.rollouts.evidence import Command, Decision, RolloutEvidence
from headrace.trainer.rollouts.findings import move
from headrace.trainer.rollouts.phases import PROMOTION, RUNNING, Phase

CREATE, PROMOTE, ABORT, PAUSE = "create", "promote", "abort", "pause"
RESUME, UNDO, SUPERSEDE = "resume", "undo", "supersede"


def commanded(evidence: RolloutEvidence, command: Command) -> Decision:
    """Where the rollout goes. FailedPreconditionError: not from the phase that it is in."""
    reason = command.reason or f"{command.actor} asked to {command.name}"
    match command.name:
        case "create":
            # it begins: no law forbids
            return Decision(evidence.phase, True, reason, 0)
        case "promote":
            return _promoted(evidence, reason)
        case "abort":
            return _aborted(evidence, reason)
        case "pause":
            return _paused(evidence, reason)
        case "resume":
            return _resumed(evidence, reason)
        case "undo":
            return _undone(evidence, command.target, reason)
        case "supersede":
            return move(evidence, Phase.SUPERSEDED, reason)
        case _:
            raise FailedPreconditionError(f"nobody can ask a rollout to {command.name}")


def _promoted(evidence: RolloutEvidence, reason: str) -> Decision:
    at = evidence.resumes_in if evidence.phase == Phase.PAUSED else evidence.phase
    if at == Phase.VALIDATING:
        raise FailedPreconditionError("gate 0 is not passed yet, and nobody can pass it by hand")
    if at in PROMOTION:
        raise FailedPreconditionError(f"it is promoted already: it is {evidence.phase}")
    return move(evidence, Phase.PROMOTING, reason)


def _aborted(evidence: RolloutEvidence, reason: str) -> Decision:
    if evidence.phase == Phase.PROMOTED:
        raise FailedPreconditionError("it is promoted: undo goes back to what served before")
    return move(evidence, Phase.ROLLING_BACK, reason)


def _paused(evidence: RolloutEvidence, reason: str) -> Decision:
    if evidence.phase not in RUNNING:
        raise FailedPreconditionError(f"a rollout that is {evidence.phase} cannot be paused")
    return move(evidence, Phase.PAUSED, reason, resumes_in=evidence.phase)


def _resumed(evidence: RolloutEvidence, reason: str) -> Decision:
    if evidence.phase == Phase.PAUSED and evidence.resumes_in is not None:
        return move(evidence, evidence.resumes_in, reason)
    if evidence.phase == Phase.INCONCLUSIVE:
        return move(evidence, Phase.SHADOWING, f"once more: {reason}", step=0)
    raise FailedPreconditionError(f"a rollout that is {evidence.phase} is not paused")


def _undone(evidence: RolloutEvidence, target: str, reason: str) -> Decision:
    at = evidence.resumes_in if evidence.phase == Phase.PAUSED else evidence.phase
    if at != Phase.PROMOTED and at not in PROMOTION:
        raise FailedPreconditionError(f"a rollout that is {evidence.phase} serves nobody that an undo could help")
    return move(evidence, Phase.ROLLING_BACK, reason, target=target)
