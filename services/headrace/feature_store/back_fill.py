"""Views that are newer than the state, folded from the log beside it until they can join it.

It begins anew after a restart; what of the log was forgotten before it began is not in the counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from headrace.feature_store.records import KINDS_FOLDED, fact_of
from headrace.feature_store.view_counts import ViewCounts
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.errors import TrimmedError, UnavailableError
from headrace.runtime.eventlog import EventLog, LoggedRecord
from headrace.runtime.shards import WHOLE, Shard
from headrace.runtime.telemetry import counter

log = logging.getLogger(__name__)

_records = counter("headrace.feature_store.back_fill.records", "{record}", "log records folded into views added later")

_RETRY_AFTER_S = 0.2


class BackFill:
    """`views` as of `offset`. `run` until `is_near`, then `finish`."""

    def __init__(
        self, event_log: EventLog, views: Sequence[WindowedView], read_limit: int, shard: Shard = WHOLE
    ) -> None:
        self._log = event_log
        self._read_limit = read_limit
        self.counts = [ViewCounts(view, shard) for view in views]
        self.offset = 0
        self.is_near = False
        self._is_finished = not views
        self._forgotten: list[str] = []
        # no owner of the state: serving goes on meanwhile
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feature-store-back-fill")

    async def run(self, live_offset: Callable[[], int]) -> None:
        """Folds the log until little is missing; a log that can't be read for a while is asked again."""
        if self._is_finished:
            return
        log.info("back_fill_begun", extra={"views": [counts.view.key for counts in self.counts]})
        while not self.is_near:
            try:
                self.is_near = not await self._fold_some(live_offset())
            except TrimmedError as error:
                log.warning("back_fill_begins_anew", extra={"reason": str(error)})
                self.counts, self.offset = [ViewCounts(counts.view, counts.shard) for counts in self.counts], 0
            except UnavailableError as error:
                log.warning("back_fill_waits", extra={"reason": str(error)})
                await asyncio.sleep(_RETRY_AFTER_S)

    async def _fold_some(self, end: int) -> bool:
        """Folds the next records up to `end`; whether there may be more."""
        records = await self._log.read(self.offset, limit=self._read_limit, kinds=KINDS_FOLDED)
        due = [record for record in records if record.offset <= end]
        await asyncio.get_running_loop().run_in_executor(self._thread, self._fold, due)
        _records.add(len(due))
        is_whole = len(due) < len(records) or len(records) < self._read_limit
        self.offset = end if is_whole else due[-1].offset
        return not is_whole

    def _fold(self, records: list[LoggedRecord]) -> None:
        facts = [fact_of(record) for record in records]
        for counts in self.counts:
            counts.apply_many(facts)

    def forget(self, user_keys: Sequence[str]) -> None:
        """Nobody is told apart by these keys in the views, once they are finished."""
        self._forgotten += user_keys

    async def finish(self, offset: int) -> list[ViewCounts]:
        """The views as of `offset`, where the state stands still meanwhile; none when that was told before."""
        if self._is_finished:
            return []
        while await self._fold_some(offset):
            pass
        for counts in self.counts:
            for user_key in self._forgotten:
                counts.forget(user_key)
            # records that change no view are not read
            counts.offset = offset
        self._is_finished = True
        self._thread.shutdown()
        log.info("back_fill_joined", extra={"offset": offset})
        return self.counts

    def close(self) -> None:
        self._thread.shutdown()
