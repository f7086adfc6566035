"""One answer's stages: how long each may take and took, and which were left out and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

from headrace.runtime.telemetry import annotate, counter, histogram, span, traceparent

_stage_duration = histogram("headrace.ranker.stage.duration", "ms", "time of one stage of an answer, by stage")
_degraded = counter("headrace.ranker.degraded", "{stage}", "stages left out of an answer, by reason")

# what one stage may take of the time that is left: each leaves something for those after it
_PEER_SHARE = 0.5
_CPU_SHARE = 0.7
# traced changes that one answer names
_MOST_LINKED = 32


# seconds that a stage is thought to take before it was run once
_FIRST_GUESS_S = 0.0005
_WEIGHT = 0.1


class UsualTimes:
    """How long each stage has taken of late.

    >>> times = UsualTimes()
    >>> times.note("score", 0.0105)
    >>> round(times.of("score"), 4)
    0.0015
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def of(self, stage: str) -> float:
        return self._seconds.get(stage, _FIRST_GUESS_S)

    def note(self, stage: str, seconds: float) -> None:
        self._seconds[stage] = (1 - _WEIGHT) * self.of(stage) + _WEIGHT * seconds

    def forget_some(self, stage: str) -> None:
        """For a stage that was left out: a slow moment must not keep it out for ever."""
        self._seconds[stage] = (1 - _WEIGHT) * self.of(stage)


class Stages:
    """Keeps the budget of one answer, from its making on."""

    def __init__(self, deadline_s: float) -> None:
        self._end = time.monotonic() + deadline_s
        self._is_traced = bool(traceparent())
        self.ms: dict[str, float] = {}
        self.missing: list[str] = []

    def left_s(self) -> float:
        """Seconds until the answer is due."""
        return self._end - time.monotonic()

    def peer_budget_s(self, most_s: float) -> float:
        """Seconds that a peer may take for its answer; 0 or less when there is no time."""
        return min(most_s, _PEER_SHARE * self.left_s())

    def cpu_budget_s(self, most_s: float) -> float:
        """Seconds that arithmetic may take, its wait for a thread included."""
        return min(most_s, _CPU_SHARE * self.left_s())

    def miss(self, stage: str, why: str) -> None:
        """Notes that a stage was left out: "index: deadline"."""
        reason = f"{stage}: {why}"
        if reason not in self.missing:
            self.missing.append(reason)
            _degraded.add(1, {"reason": reason})

    def tell(self, facts: Mapping[str, str | int], state: str, changes: Callable[[], Sequence[str]]) -> None:
        """Says in the call's span how the answer came about; links to what its state and its vectors reflect."""
        if self._is_traced:
            links = dict.fromkeys(changes()[:_MOST_LINKED], "vectors") | ({state: "state"} if state else {})
            annotate({**facts, "headrace.degraded": "; ".join(self.missing)}, links)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Times a stage, with a span when the call is traced."""
        begun = time.perf_counter()
        try:
            with span(f"ranker.{stage}") if self._is_traced else nullcontext():
                yield
        finally:
            took_ms = (time.perf_counter() - begun) * 1e3
            self.ms[stage] = self.ms.get(stage, 0.0) + took_ms
            _stage_duration.record(took_ms, {"stage": stage})
