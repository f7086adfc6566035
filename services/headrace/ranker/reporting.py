"""Tells the registry every second or so what this process did since it started; nobody has to listen."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from headrace.ranker.arm_counts import ArmCount
from headrace.ranker.releases import Refusal
from headrace.ranker.shadow import Report
from headrace.runtime.errors import HeadraceError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Instance:
    """One run of one ranker: its sums count from `start_us` on, Unix microseconds."""

    name: str
    start_us: int
    track: str

    @classmethod
    def this(cls, track: str) -> Instance:
        """Named for its host (a pod's is the pod's name) and process, since a host may run several."""
        return cls(f"{socket.gethostname()}-{os.getpid()}", time.time_ns() // 1_000, track)


@dataclass(frozen=True, slots=True)
class ServingReport:
    """What one process does and did. `refused` did not pass gate 0 here, and is not only late: it ends a rollout."""

    instance: Instance
    plan_sequence: int
    release: str
    refused: Refusal
    arms: Sequence[ArmCount]
    shadow: Report | None


class Reporter:
    """Sends what `report` gives, by `send`, every `every_s`."""

    def __init__(
        self, report: Callable[[], ServingReport], send: Callable[[ServingReport], Awaitable[None]], every_s: float
    ) -> None:
        self._report = report
        self._send = send
        self._every_s = every_s
        self._is_heard = True

    async def run(self) -> None:
        """Reports for ever, and says once when nobody listens and once when somebody does again."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._send(self._report())
            except HeadraceError as error:
                if self._is_heard:
                    log.warning("reports_unheard", extra={"reason": str(error)})
                self._is_heard = False
                continue
            if not self._is_heard:
                log.info("reports_heard_again")
            self._is_heard = True
