"""Reads one person's history, wherever it rests, without holding the fold up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from headrace.feature_store.histories import Histories, joined, live
from headrace.feature_store.user_tier import UserTier

_THREADS = 8


class MissingRows(list[str]):
    """Keys whose rows have to be fetched first."""


class HistoryReader:
    """Fetched rows are good until a record changes them: then who they are of is held, and that is what counts."""

    def __init__(self, histories: Histories, tier: UserTier) -> None:
        self._histories = histories
        self._tier = tier
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="feature-store-users")

    def missing(self, user_keys: Sequence[str], rows: Mapping[str, bytes]) -> MissingRows:
        """Who is neither held nor among `rows`."""
        return MissingRows(key for key in user_keys if key not in rows and self._histories.held_bytes(key) is None)

    def joined(self, user_keys: Sequence[str], rows: Mapping[str, bytes]) -> bytes:
        """One person's history under several keys, each of them held or among `rows`."""
        return joined([self._newest(user_key, rows) for user_key in user_keys], self._histories.limit_bytes)

    async def fetched(self, user_keys: Sequence[str]) -> dict[str, bytes]:
        """Rows by key, empty for who was never seen. UnavailableError: they rest in a tier that can't be reached."""
        rows = await self._fetched(list(user_keys))
        return {user_key: rows.get(user_key, b"") for user_key in user_keys}

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
