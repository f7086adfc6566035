"""Reads one person's history, wherever it rests, without holding the fold up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from headrace.feature_store.histories import Histories, joined, live
from headrace.feature_store.user_tier import UserTier

_THREADS = 8


class HistoryReader:
    """A read holds at least all that was folded when it began."""

    def __init__(self, histories: Histories, tier: UserTier) -> None:
        self._histories = histories
        self._tier = tier
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="feature-store-users")

    async def bytes_of(self, user_keys: Sequence[str]) -> bytes:
        """One person's history under several keys. UnavailableError: a part rests in a tier that can't be reached."""
        missing = [user_key for user_key in user_keys if self._histories.held_bytes(user_key) is None]
        rows = await self._fetched(missing) if missing else {}
        return joined([self._newest(user_key, rows) for user_key in user_keys], self._histories.limit_bytes)

    def _newest(self, user_key: str, rows: Mapping[str, bytes]) -> bytes:
        # whoever wasn't held had nothing new since the tier's rows; but may have by now
        held = self._histories.held_bytes(user_key)
        return live(rows.get(user_key, b""), self._histories.cutoff_us) if held is None else held

    async def _fetched(self, user_keys: list[str]) -> Mapping[str, bytes]:
        if not self._tier.is_remote:
            return self._tier.fetch(user_keys)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._tier.fetch, user_keys)

    def close(self) -> None:
        self._threads.shutdown()
