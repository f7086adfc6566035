"""What became of the answers to each arm's people, since the process started: the guardrails' evidence."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from headrace.model.arms import STABLE
from headrace.ranker.assignment import Placement
from headrace.runtime.telemetry import counter, histogram

# an answer belongs to the first bound that it does not exceed; beyond the last there is one more place
LATENCY_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
# of rollouts that are over, nobody asks for long
_MOST_ARMS = 16

_answers = counter("headrace.ranker.arm.answers", "{answer}", "answers to people in a rollout, by rollout, arm, track")
_fallbacks = counter("headrace.ranker.arm.fallbacks", "{answer}", "canary arm's answers that stable made, by reason")
_errors = counter("headrace.ranker.arm.errors", "{call}", "calls of people in a rollout that failed, by rollout, arm")
_duration = histogram("headrace.ranker.arm.duration", "ms", "time to answer people in a rollout, by arm and track")


@dataclass
class ArmCount:
    """Sums over the answers to one arm's people; rollout "" and arm stable for all who are in no rollout."""

    rollout: str
    arm: str
    answers: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    degraded: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))


class ArmCounts:
    """Counts by rollout and arm; those of the newest rollouts are kept."""

    def __init__(self) -> None:
        self.fallbacks = 0
        self._counts: dict[tuple[str, str], ArmCount] = {}

    def answered(self, placement: Placement, took_ms: float, *, is_degraded: bool, fallback: str, track: str) -> None:
        """Counts an answer that `track` made; `fallback` says why it was not the canary's, empty: it needn't be."""
        if not placement.is_counted:
            return
        count = self._count(placement)
        count.answers += 1
        count.degraded += is_degraded
        count.latency[bisect_left(LATENCY_BOUNDS_MS, took_ms)] += 1
        if fallback:
            self.fallbacks += 1
            count.fallbacks[fallback] += 1
            _fallbacks.add(1, {"rollout": count.rollout, "reason": fallback})
        if count.rollout:
            _answers.add(1, {"rollout": count.rollout, "arm": count.arm, "track": track})
            _duration.record(took_ms, {"arm": count.arm, "track": track})

    def failed(self, placement: Placement) -> None:
        """Counts a call that its caller saw fail."""
        if not placement.is_counted:
            return
        count = self._count(placement)
        count.errors += 1
        if count.rollout:
            _errors.add(1, {"rollout": count.rollout, "arm": count.arm})

    def reports(self) -> list[ArmCount]:
        """The sums as they stand, oldest rollout first."""
        return list(self._counts.values())

    def _count(self, placement: Placement) -> ArmCount:
        exposure = placement.exposure
        key = exposure.rollout, exposure.arm or STABLE
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = ArmCount(*key)
            self._forget_old()
        return count

    def _forget_old(self) -> None:
        old = [key for key in self._counts if key[0]][:-_MOST_ARMS]
        for key in old:
            del self._counts[key]
