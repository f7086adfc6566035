"""Where evidence comes from: what the controller asks of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.trainer.analysis.evidence import LoggedEvidence
from headrace.trainer.analysis.observations import Observed
from headrace.trainer.registry import Release
from headrace.trainer.rollouts.rollout import Rollout


class LoggedSource(Protocol):
    """Scores what was logged with both releases (gate 1)."""

    async def shadow(self, candidate: Release, baseline: Release) -> LoggedEvidence:
        """Its counts say how much was logged, which may be nothing. UnavailableError: nobody knows now."""
        ...


class Outcomes(Protocol):
    """What people in either arm did since the present step of a rollout began (gate 2)."""

    def observed(self, rollout: Rollout, now_us: int) -> Observed | None:
        """None: it is not known yet, such as while the log is being followed up to here."""
        ...


class Artifacts(Protocol):
    """Looks at a release's own files (gate 0)."""

    async def fault(self, release: Release) -> str:
        """What is wrong with it; empty when it is sound. UnavailableError: its files cannot be reached."""
        ...


class Deployments(Protocol):
    """The rankers' own rollouts, of code."""

    async def unsettled(self) -> Sequence[str]:
        """Which are in the midst of one, each in words. UnavailableError: nobody knows."""
        ...
