"""How a rollout begins."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.runtime.clock import now_us
from headrace.trainer.registry import Release
from headrace.trainer.rollouts.decisions import decide
from headrace.trainer.rollouts.evidence import Command, RankersSeen, Record, RolloutEvidence, RolloutPolicy
from headrace.trainer.rollouts.phases import Phase


@dataclass(frozen=True, slots=True)
class Beginning:
    """A rollout to be: of which release, against what, where it is to end."""

    kind: str
    track: str
    feeds: int
    release: int
    baseline: int
    lineage: str
    steps_bp: tuple[int, ...]
    phase: Phase = Phase.VALIDATING


@dataclass(frozen=True, slots=True)
class Next:
    """A rollout that is due, and of what."""

    beginning: Beginning
    release: Release
    baseline: Release | None


def beginning_record(due: Next, command: Command, policy: RolloutPolicy) -> Record:
    """What a rollout's first transition keeps."""
    beginning, now = due.beginning, now_us()
    evidence = RolloutEvidence(
        now_us=now,
        phase=beginning.phase,
        phase_time_us=now,
        resumes_in=None,
        kind=beginning.kind,
        track=beginning.track,
        release=due.release.name,
        baseline=due.baseline.name if due.baseline else "",
        step=0,
        steps_bp=beginning.steps_bp,
        rankers=RankersSeen(),
        command=command,
    )
    return Record(evidence, policy, decide(evidence, policy))
