"""Answers a call from the track of the person's arm, and from stable whenever the canary's answer may not be shown.

Nobody pays for a broken canary twice: after a few failures it is asked no more, and whether it is back is found out
beside an answer of stable, by sending it the same request and throwing its answer away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import Context as Variables
from dataclasses import dataclass
from typing import Generic

from google.protobuf.message import Message

from headrace.model.arms import CANARY, STABLE
from headrace.ranker.admission import Admission
from headrace.ranker.arm_counts import ArmCounts
from headrace.ranker.assignment import Placement
from headrace.ranker.breaker import Breaker
from headrace.ranker.canary_answer import AnswerCheck, Checked, R, Wanted
from headrace.ranker.fallback import FallbackError, Reason
from headrace.ranker.hop import CanaryTrack
from headrace.ranker.impressions import ImpressionLog
from headrace.ranker.search import ProductQuery
from headrace.runtime.calls import remaining_s
from headrace.runtime.telemetry import span

log = logging.getLogger(__name__)

# what is left to stable is worth more than a try in so little time
_LEAST_BUDGET_S = 0.01


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """A checked request, where it goes, and how this ranker answers it itself."""

    kind: type[R]
    request: Message
    wanted: Wanted
    placement: Placement
    own: Callable[[], Awaitable[R]]


class Arms:
    """The door to both tracks. `canary` is None where no address of one is known."""

    def __init__(
        self,
        canary: CanaryTrack | None,
        check: AnswerCheck,
        breaker: Breaker,
        fallbacks: Admission,
        impressions: ImpressionLog | None,
        *,
        budget_s: float,
        default_deadline_s: float,
    ) -> None:
        self.counts = ArmCounts()
        self._canary = canary
        self._check = check
        self._breaker = breaker
        self._fallbacks = fallbacks
        self._impressions = impressions
        self._budget_s = budget_s
        self._default_deadline_s = default_deadline_s
        self._probes: set[asyncio.Task[None]] = set()

    @property
    def is_asking(self) -> bool:
        """Whether the canary is asked at present."""
        return self._canary is not None and not self._breaker.is_open

    async def answered(self, call: Call[R]) -> R:
        """The answer of the person's arm, or of stable in its stead."""
        begun, reason = time.perf_counter(), ""
        try:
            if call.placement.is_for_canary:
                response, reason = await self._for_canary(call)
            else:
                response = await call.own()
        except Exception:
            # whatever it was, the caller sees this call fail
            self.counts.failed(call.placement)
            raise
        self.counts.answered(
            call.placement,
            (time.perf_counter() - begun) * 1e3,
            is_degraded=bool(response.info.degraded_reasons),
            fallback=reason,
            track=response.info.track,
        )
        return response

    def close(self) -> None:
        for probe in self._probes:
            probe.cancel()

    async def _for_canary(self, call: Call[R]) -> tuple[R, str]:
        """An answer, and why it is stable's; empty: it is the canary's."""
        facts: dict[str, str | int | float | bool] = {"headrace.rollout": call.placement.exposure.rollout}
        with span("ranker.canary", attributes=facts, is_kept=True) as current:
            response, reason = await self._by_either(call)
            current.set_attribute("headrace.fallback", reason)
            return response, reason

    async def _by_either(self, call: Call[R]) -> tuple[R, str]:
        tried = await self._tried(call)
        if isinstance(tried, Reason):
            return await self._fallen_back(call), tried.value
        if tried.response.results:
            self._succeed()
            return self._shown(tried), ""
        # nothing may be right: it is if stable finds nothing either
        own = await self._fallen_back(call)
        if not own.results:
            return self._shown(tried), ""
        self._fail(FallbackError(Reason.EMPTY))
        return own, Reason.EMPTY.value

    async def _tried(self, call: Call[R]) -> Checked[R] | Reason:
        try:
            return await self._asked(call, self._canary_budget_s(call))
        except FallbackError as error:
            self._fail(error)
            return error.reason

    def _canary_budget_s(self, call: Call[R]) -> float:
        """Seconds that the canary may take. FallbackError: it is not to be asked, and why."""
        if self._canary is None:
            raise FallbackError(Reason.ABSENT)
        if isinstance(call.wanted, ProductQuery) and call.wanted.page.track == STABLE:
            raise FallbackError(Reason.PAGE)
        if self._breaker.is_open:
            self._probe_beside(call)
            raise FallbackError(Reason.BREAKER)
        left_s = remaining_s()
        budget_s = min(self._budget_s, (self._default_deadline_s if left_s is None else left_s) / 2)
        if budget_s < _LEAST_BUDGET_S:
            raise FallbackError(Reason.NO_TIME)
        return budget_s

    async def _asked(self, call: Call[R], timeout_s: float) -> Checked[R]:
        if self._canary is None:
            raise FallbackError(Reason.ABSENT)
        response = await self._canary.ask(call.kind, call.request, call.placement.exposure, timeout_s)
        return self._check.checked(response, call.wanted)

    async def _fallen_back(self, call: Call[R]) -> R:
        """This ranker's own answer. Few are made at once: a broken canary must not crowd out the stable arm."""
        async with self._fallbacks.turn():
            return await call.own()

    def _shown(self, checked: Checked[R]) -> R:
        if self._impressions is not None and checked.impression is not None:
            self._impressions.note(checked.impression)
        return checked.response

    def _probe_beside(self, call: Call[R]) -> None:
        """Now and then asks the canary beside the answer; with its whole budget, whatever this caller's deadline is."""
        if not self._breaker.allows():
            return
        probe = asyncio.create_task(self._probe(call), context=Variables())
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    async def _probe(self, call: Call[R]) -> None:
        try:
            checked = await self._asked(call, self._budget_s)
        except FallbackError as error:
            self._fail(error)
            return
        # no products prove nothing: the next request may tell
        if checked.response.results:
            self._succeed()

    def _succeed(self) -> None:
        if self._breaker.is_open:
            log.info("canary_asked_again", extra={"track": CANARY})
        self._breaker.succeed()

    def _fail(self, error: FallbackError) -> None:
        if not error.reason.is_fault:
            return
        was_open = self._breaker.is_open
        self._breaker.fail()
        if self._breaker.is_open and not was_open:
            log.warning("canary_asked_no_more", extra={"reason": str(error)})
