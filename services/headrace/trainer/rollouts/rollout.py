"""One rollout as it stands, and one step of its history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headrace.model.arms import STABLE
from headrace.runtime.errors import NotFoundError
from headrace.trainer.analysis.evidence import Difference
from headrace.trainer.rollouts.evidence import GateFinding
from headrace.trainer.rollouts.phases import PROMOTION, Phase


@dataclass(frozen=True, slots=True)
class Rollout:
    """Releases by number, 0 for none. `feeds`: the rollout whose canary slot an increment ends in; 0: stable."""

    number: int
    kind: str
    track: str
    feeds: int
    phase: Phase
    resumes_in: Phase | None
    release: int
    baseline: int
    lineage: str
    salt: str
    alpha: float
    share_bp: int
    step: int
    step_time_us: int
    steps_bp: tuple[int, ...]
    reason: str
    gates: tuple[GateFinding, ...]
    comparisons: tuple[Difference, ...]
    # what the rankers had added up when it was promoted, and when its step began
    marks: dict[str, Any] = field(repr=False)
    create_time_us: int
    phase_time_us: int
    version: int

    @property
    def name(self) -> str:
        return rollout_name(self.number)

    @property
    def at(self) -> Phase:
        """Its phase; of a paused one that in which it goes on."""
        return self.resumes_in if self.phase == Phase.PAUSED and self.resumes_in else self.phase

    @property
    def holds_shadow(self) -> bool:
        return self.at in (Phase.VALIDATING, Phase.SHADOWING)

    @property
    def is_taking_over(self) -> bool:
        """Its release is stable, but not for good yet."""
        return self.track == STABLE and self.at in PROMOTION


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of one rollout; `from_phase` is None for its beginning."""

    number: int
    rollout: int
    from_phase: Phase | None
    to_phase: Phase
    actor: str
    reason: str
    evidence: str
    time_us: int


def rollout_name(number: int) -> str:
    """`ro-000007`."""
    return f"ro-{number:06d}"


def rollout_number(name: str) -> int:
    """NotFoundError when it is no name of a rollout."""
    digits = name.removeprefix("ro-")
    if not digits.isdecimal() or not digits.isascii() or rollout_name(int(digits)) != name:
        raise NotFoundError(f"no rollout {name!r}")
    return int(digits)
