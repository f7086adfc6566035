"""Puts together what one decision is made from: reports, logged lists, what people did, and the rollout itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from headrace.model.arms import CANARY, STABLE
from headrace.model.serving_model import ModelError
from headrace.runtime.errors import HeadraceError
from headrace.trainer.analysis.evidence import ArmCounts, CanaryEvidence, LoggedEvidence, ShadowEvidence
from headrace.trainer.analysis.observations import ArmSeen
from headrace.trainer.registry import Registry, Release, name_of
from headrace.trainer.rollouts.evidence import INCREMENT, LINEAGE, RankersSeen, Refusal, RolloutEvidence
from headrace.trainer.rollouts.phases import PROMOTION, Phase
from headrace.trainer.rollouts.reports import RankerReport, arm_sums, mark, shadow_sums, since, until
from headrace.trainer.rollouts.rollout import Rollout
from headrace.trainer.rollouts.sources import Artifacts, LoggedSource, Outcomes

log = logging.getLogger(__name__)
T = TypeVar("T")

# logged lists come in all the time: asked again after so long
_ASK_AGAIN_S = 10.0
_RETRY_S = 1.0


class _Asked(Generic[T]):
    """The newest answer to a question that takes a while, asked beside; None before the first one."""

    def __init__(self, again_s: float | None) -> None:
        self._again_s = again_s
        self._key: object = None
        self._task: asyncio.Task[T] | None = None
        self._answer: tuple[T] | None = None
        self._next_s = 0.0
        # whether the last try gave none
        self.has_failed = False

    def answer(
        self, key: object, ask: Callable[[], Coroutine[Any, Any, T]], on_answer: Callable[[], None]
    ) -> tuple[T] | None:
        if key != self._key:
            self.close()
            self._key, self._answer, self._next_s, self.has_failed = key, None, 0.0, False
        self._take()
        if self._task is None and time.monotonic() >= self._next_s:
            self._task = asyncio.create_task(ask())
            self._task.add_done_callback(lambda _: on_answer())
        return self._answer

    def _take(self) -> None:
        if self._task is None or not self._task.done():
            return
        task, self._task = self._task, None
        self._next_s = time.monotonic() + (_RETRY_S if self._again_s is None else self._again_s)
        try:
            self._answer = (task.result(),)
        except (HeadraceError, ModelError) as error:
            log.warning("evidence_not_there", extra={"reason": str(error)})
            self.has_failed = True
            return
        self.has_failed = False
        if self._again_s is None:
            self._next_s = float("inf")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None


class Gathering:
    """Gathers for one controller; what takes long is asked beside and used when it is there."""

    def __init__(
        self,
        registry: Registry,
        artifacts: Artifacts,
        logged: LoggedSource | None,
        outcomes: Outcomes | None,
        report_valid_s: float,
    ) -> None:
        self._registry = registry
        self._artifacts = artifacts
        self._logged = logged
        self._outcomes = outcomes
        self._valid_us = int(report_valid_s * 1e6)
        # called when something that took long is known
        self.on_answer: Callable[[], None] = lambda: None
        self._faults: _Asked[str] = _Asked(None)
        self._shadows: _Asked[LoggedEvidence] = _Asked(_ASK_AGAIN_S)

    def close(self) -> None:
        self._faults.close()
        self._shadows.close()

    def evidence(
        self,
        rollout: Rollout,
        releases: dict[int, Release],
        newer: str,
        reports: Sequence[RankerReport],
        now_us: int,
        listened_s: float,
    ) -> RolloutEvidence:
        """Everything about one rollout as of `now_us`; `releases` are those that it names."""
        found = bare_evidence(rollout, now_us)
        live = [report for report in reports if now_us - report.received_us <= self._valid_us]
        return replace(
            found,
            newer=newer,
            rankers=_seen(rollout, live, listened_s),
            fault=self._fault(rollout, releases),
            shadow=self._shadow(rollout, releases, found, reports),
            canary=self._canary(rollout, reports, now_us) if _is_in_canary(rollout) else None,
            soak=_soak(rollout, reports, now_us) if rollout.at in PROMOTION else None,
        )

    def _fault(self, rollout: Rollout, releases: dict[int, Release]) -> str | None:
        if rollout.phase != Phase.VALIDATING:
            return None
        release = releases[rollout.release]
        answer = self._faults.answer(release.name, lambda: self._artifacts.fault(release), self.on_answer)
        return answer[0] if answer else None

    def _shadow(
        self,
        rollout: Rollout,
        releases: dict[int, Release],
        found: RolloutEvidence,
        reports: Sequence[RankerReport],
    ) -> ShadowEvidence | None:
        if rollout.phase != Phase.SHADOWING:
            return None
        # rankers hold the shadow against what is stable, also where it is to end in the canary slot
        stable = self._registry.plan().stable
        if stable is None:
            return None
        answer = self._logged_answer(releases[rollout.release], stable)
        if answer is None:
            return None
        live = shadow_sums(reports, found.release, stable.name)
        is_increment = rollout.kind == INCREMENT and rollout.track == STABLE
        return ShadowEvidence(found.release, is_increment, found.elapsed_s, rollout.alpha, live, answer[0])

    def _logged_answer(self, candidate: Release, baseline: Release) -> tuple[LoggedEvidence] | tuple[None] | None:
        source = self._logged
        if source is None:
            return (None,)

        answer = self._shadows.answer(
            (candidate.name, baseline.name), lambda: source.shadow(candidate, baseline), self.on_answer
        )
        # what live requests show counts whether or not the log can be asked
        return (None,) if answer is None and self._shadows.has_failed else answer

    def _canary(self, rollout: Rollout, reports: Sequence[RankerReport], now_us: int) -> CanaryEvidence | None:
        observed = self._outcomes.observed(rollout, now_us) if self._outcomes else None
        if observed is None:
            return None
        stable, canary = (
            _counted(since(arm_sums(reports, rollout.name, arm), rollout.marks.get(arm, {})), seen)
            for arm, seen in ((STABLE, observed.stable), (CANARY, observed.canary))
        )
        hours = (now_us - rollout.step_time_us) / 3.6e9
        return CanaryEvidence(
            rollout.name, rollout.step, rollout.steps_bp, hours, rollout.alpha, observed.metrics, stable, canary
        )


def bare_evidence(rollout: Rollout, now_us: int) -> RolloutEvidence:
    """What the rollout itself says: enough for what people ask of it."""
    return RolloutEvidence(
        now_us=now_us,
        phase=rollout.phase,
        phase_time_us=rollout.phase_time_us,
        resumes_in=rollout.resumes_in,
        kind=rollout.kind,
        track=rollout.track,
        release=name_of(rollout.release),
        baseline=name_of(rollout.baseline) if rollout.baseline else "",
        step=rollout.step,
        steps_bp=rollout.steps_bp,
        rankers=RankersSeen(),
        reason=rollout.reason,
    )


def marks(rollout: Rollout, to_phase: Phase, reports: Sequence[RankerReport]) -> dict[str, Any]:
    """The rankers' sums at a step that later ones are held against."""
    if rollout.phase == Phase.PAUSED and rollout.resumes_in == to_phase:
        return {}
    if to_phase == Phase.PROMOTING:
        return {"promoted": mark(arm_sums(reports))}
    if to_phase == Phase.CANARY:
        return {arm: mark(arm_sums(reports, rollout.name, arm)) for arm in (STABLE, CANARY)}
    return {}


def _is_in_canary(rollout: Rollout) -> bool:
    return rollout.kind == LINEAGE and rollout.at == Phase.CANARY


def _seen(rollout: Rollout, live: Sequence[RankerReport], listened_s: float) -> RankersSeen:
    name = name_of(rollout.release)
    is_canarys = rollout.kind == LINEAGE and rollout.at in (Phase.SHADOWING, Phase.CANARY)
    track = CANARY if rollout.track == CANARY or is_canarys else STABLE
    on_track = [report for report in live if report.track == track]
    refusals = [Refusal(report.ranker, report.refused_reason) for report in live if report.refused_release == name]
    return RankersSeen(
        stable=sum(report.track == STABLE for report in live),
        on_track=len(on_track),
        with_release=sum(report.release == name for report in on_track),
        with_shadow=sum(
            report.track == STABLE and report.shadow is not None and report.shadow.release == name for report in live
        ),
        refusals=tuple(sorted(refusals, key=lambda refusal: refusal.ranker)),
        listened_s=listened_s,
    )


def _soak(rollout: Rollout, reports: Sequence[RankerReport], now_us: int) -> CanaryEvidence:
    """Before and after the promotion, in the form that guardrails read: before as stable, after as canary."""
    marked = rollout.marks.get("promoted", {})
    hours = (now_us - rollout.phase_time_us) / 3.6e9
    after = since(arm_sums(reports), marked)
    # a fallback of another rollout's canary says nothing of what stable serves
    stable, canary = replace(until(marked), fallbacks=0), replace(after, fallbacks=0)
    return CanaryEvidence(rollout.name, 0, (10_000,), hours, rollout.alpha, (), stable, canary)


def _counted(counts: ArmCounts, seen: ArmSeen) -> ArmCounts:
    return replace(counts, people=seen.people, predicted=seen.predicted, clicked=seen.clicked)
