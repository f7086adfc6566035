"""Holds the shadow release against the served one on live requests, after they are answered (gate 1).

At most so many a second, one at a time, in turns with the answers: a release's judgement costs what an answer's own
arithmetic does, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from headrace.ranker.paired import Judgement, Slate, Sums, compared, judged
from headrace.ranker.served import Served
from headrace.ranker.turns import Turns
from headrace.runtime.telemetry import counter, histogram

log = logging.getLogger(__name__)

_LEAST_CANDIDATES = 2
# the answer goes out first
_PAUSE_S = 0.005

_pairs = counter("headrace.ranker.shadow.pairs", "{pair}", "live requests that the shadow release scored, by outcome")
_duration = histogram("headrace.ranker.shadow.duration", "ms", "time of the shadow release's judgement of one request")
_overlap = histogram("headrace.ranker.shadow.overlap", "1", "share of the best 20 that shadow and served release share")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of holding `release` against `baseline` so far."""

    release: str
    baseline: str
    sums: Sums


class Shadow:
    """Takes some of the answers and adds up how far the shadow's would have been from them."""

    def __init__(self, shadow: Callable[[], Served | None], turns: Turns, per_s: float) -> None:
        self.report: Report | None = None
        self._shadow = shadow
        self._is_shadow_first = False
        self._turns = turns
        self._gap_s = 1 / per_s if per_s else float("inf")
        self._next_s = 0.0 if per_s else float("inf")
        self._waiting: asyncio.Queue[tuple[Served, Slate]] = asyncio.Queue(1)

    def offer(self, served: Served | None, slate: Slate) -> None:
        """Takes an answer that was just made, when it is time for one."""
        now_s = time.monotonic()
        if served is None or now_s < self._next_s or self._shadow() is None or self._waiting.full():
            return
        if len(slate.ordinals) < _LEAST_CANDIDATES:
            return
        self._next_s = now_s + self._gap_s
        self._waiting.put_nowait((served, slate))

    async def run(self) -> None:
        """Judges for ever; what goes wrong in it is counted against the shadow."""
        while True:
            baseline, slate = await self._waiting.get()
            await asyncio.sleep(_PAUSE_S)
            shadow = self._shadow()
            if shadow is not None and shadow.release != baseline.release:
                self._add(shadow, baseline, await self._compared(shadow, baseline, slate))

    async def _compared(self, shadow: Served, baseline: Served, slate: Slate) -> Sums:
        # in turn, for the second finds what both need in the processor's cache
        self._is_shadow_first = not self._is_shadow_first
        pair = (shadow, baseline) if self._is_shadow_first else (baseline, shadow)
        made = {each.release: await self._judged(each, slate) for each in pair}
        theirs, ours = made[shadow.release], made[baseline.release]
        if theirs is None:
            return Sums(failures=1)
        # what the served release cannot judge says nothing of the shadow
        return compared(theirs, ours) if ours is not None and ours.is_finite else Sums()

    async def _judged(self, served: Served, slate: Slate) -> Judgement | None:
        await self._turns.next()
        try:
            return judged(served, slate)
        except Exception:
            # whatever a faulty release may raise: it is to be told, not to end the ranker
            log.exception("shadow_scoring_failed", extra={"release": served.release})
            return None

    def _add(self, shadow: Served, baseline: Served, sums: Sums) -> None:
        if sums.pairs:
            _duration.record(sums.sum_ms)
            _overlap.record(sums.sum_overlap_at_20)
        for outcome, count in (("compared", sums.pairs), ("not finite", sums.not_finite), ("failed", sums.failures)):
            if count:
                _pairs.add(count, {"outcome": outcome})
        before = self.report
        if before is not None and (before.release, before.baseline) == (shadow.release, baseline.release):
            sums = before.sums.plus(sums)
        self.report = Report(shadow.release, baseline.release, sums)
