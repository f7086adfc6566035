"""Reads one person's history, wherever it rests, without holding the fold up."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from headrace.feature_store.histories import Histories, live
from headrace.feature_store.user_tier import UserTier

_THREADS = 8


class HistoryReader:
    """A read holds at least all that was folded when it began."""

    def __init__(self, histories: Histories, tier: UserTier) -> None:
        self._histories = histories
        self._tier = tier
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="feature-store-users")

    async def bytes_of(self, user_key: str) -> bytes:
        """UnavailableError when it rests in a tier that can't be reached."""
        held = self._histories.held_bytes(user_key)
        if held is not None:
            return held
        row = await self._fetched(user_key)
        # whoever wasn't held had nothing new since the tier's rows; but may have by now
        held = self._histories.held_bytes(user_key)
        return live(row, self._histories.cutoff_us) if held is None else held

    async def _fetched(self, user_key: str) -> bytes:
        if self._tier.is_remote:
            rows = await asyncio.get_running_loop().run_in_executor(self._threads, self._tier.fetch, [user_key])
        else:
            rows = self._tier.fetch([user_key])
        return rows.get(user_key, b"")

    def close(self) -> None:
        self._threads.shutdown()
