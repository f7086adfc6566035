"""Makes it durable that people are forgotten: no file and no older snapshot holds them; then says so in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.feature_store.row_store import IsGone, without
from headrace.feature_store.snapshot import Snapshots
from headrace.runtime.confirmations import Confirmations
from headrace.runtime.erasures import Erasure
from headrace.runtime.errors import HeadraceError
from headrace.runtime.eventlog import EventLog
from headrace.runtime.privacy import Privacy
from headrace.runtime.shards import Shard

log = logging.getLogger(__name__)

_NAME = "feature-store"
_RETRY_AFTER_S = 0.5


def consumer_name(shard: Shard) -> str:
    """Who says that people are forgotten: each shard speaks for itself.

    >>> consumer_name(Shard()), consumer_name(Shard(1, 4))
    ('feature-store', 'feature-store-1/4')
    """
    return _NAME if shard.count == 1 else f"{_NAME}-{shard}"


class Erasing:
    """What is to be done after the fold has erased somebody. The state's side of it is in `state_keeper`."""

    def __init__(
        self, event_log: EventLog, snapshots: Snapshots, confirmations: Confirmations, privacy: Privacy
    ) -> None:
        self._log = event_log
        self._snapshots = snapshots
        self._confirmations = confirmations
        self._privacy = privacy

    def among(self, erasure: Erasure, user_keys: Sequence[str]) -> set[str]:
        """Those of the people who are to be forgotten. Nobody is found by another key, which is told."""
        if erasure.key_fingerprint != self._privacy.fingerprint:
            facts = {"erasure": erasure.id, "wanted": erasure.key_fingerprint, "own": self._privacy.fingerprint}
            log.error("privacy_key_differs", extra=facts)
            return set()
        return {user_key for user_key in user_keys if erasure.names(self._privacy, user_key)}

    def is_gone(self, erasure: Erasure) -> IsGone:
        """Which groups are theirs: what was closed later is of a new person with the same key."""
        return lambda user_key, offset: offset <= erasure.offset and erasure.names(self._privacy, user_key)

    async def rewrite(self, erasure: Erasure, paths: Sequence[Path], erased: Mapping[str, int]) -> None:
        """Writes row files without them, and notes what was erased in all."""
        is_gone = self.is_gone(erasure)
        counts = [await asyncio.to_thread(without, path, is_gone) for path in paths]
        groups = erased.get("training_groups", 0) + sum(counts)
        noted = {**erased, "training_groups": groups}
        await asyncio.to_thread(self._confirmations.note, erasure.id, erasure.offset, noted)

    async def confirm(self, snapshot_offset: int) -> None:
        """Says that all are forgotten whose tombstones are in the snapshot; all others go first."""
        while self._confirmations.are_due(snapshot_offset):
            try:
                await asyncio.to_thread(self._snapshots.forget_all_but, snapshot_offset)
                await self._confirmations.send(self._log, snapshot_offset)
            except HeadraceError as error:
                log.warning("erasure_not_confirmed", extra={"reason": str(error)})
                await asyncio.sleep(_RETRY_AFTER_S)
