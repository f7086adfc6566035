"""The serving plan as it stands in SQL, for everybody who watches it: several processes tell the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from sqlalchemy.exc import OperationalError

from headrace.trainer.registry import ServingPlan

log = logging.getLogger(__name__)

_POLL_S = 0.25


class PlanBoard:
    """Holds the newest plan that `read` gave; watchers get it at once, every newer one, and it again every `again_s`.

    A watcher that is slow gets the newest only.
    """

    def __init__(self, read: Callable[[], ServingPlan], again_s: float) -> None:
        self._read = read
        self._again_s = again_s
        self._plan = read()
        self._changed = asyncio.Event()
        self._is_known = True

    @property
    def plan(self) -> ServingPlan:
        return self._plan

    async def refresh(self) -> None:
        """Reads the plan now."""
        plan = await asyncio.to_thread(self._read)
        if plan.sequence > self._plan.sequence:
            self._plan = plan
            self._changed.set()
            self._changed = asyncio.Event()

    async def run(self) -> None:
        """Reads for ever. While the database is away watchers hear nothing, so that the plan grows old with them."""
        while True:
            try:
                await self.refresh()
                self._is_known = True
            except OperationalError as error:
                if self._is_known:
                    log.warning("plan_not_read", extra={"reason": str(error.orig)})
                self._is_known = False
            await asyncio.sleep(_POLL_S)

    async def watch(self) -> AsyncIterator[ServingPlan]:
        """Never ends by itself."""
        while True:
            changed, plan = self._changed, self._plan
            if self._is_known:
                yield plan
            if self._plan is plan:
                await self._next(changed)

    async def _next(self, changed: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._again_s):
                await changed.wait()
        except TimeoutError:
            return
