"""The serving plan as it stands, for everybody who watches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from headrace.trainer.registry import ServingPlan


class PlanBoard:
    """Holds the newest plan; watchers get it at once and every newer one (the newest, when they are slow)."""

    def __init__(self, plan: ServingPlan) -> None:
        self._plan = plan
        self._changed = asyncio.Event()

    @property
    def plan(self) -> ServingPlan:
        return self._plan

    def post(self, plan: ServingPlan) -> None:
        self._plan = plan
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self) -> AsyncIterator[ServingPlan]:
        """Never ends by itself."""
        while True:
            changed, plan = self._changed, self._plan
            yield plan
            if self._plan is plan:
                await changed.wait()
