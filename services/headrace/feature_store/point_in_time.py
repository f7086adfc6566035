"""Features as they were at moments of the past: the log folded again up to each, beside the serving state.

The fold is the one that serves (without its training groups, which nothing here reads), so what is told of a moment is
what was told then, bit for bit. It begins at the newest kept snapshot that is not after the first moment, else at the
beginning of the log.

As of an offset: after the record at that offset. As of a time t: after every record before the first one that moves
the log's clock beyond t.
"""

# L labels, in the order of their moments

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.facts import Fact, UserAct
from headrace.feature_store.feature_names import Selection
from headrace.feature_store.fold import State
from headrace.feature_store.online_features import Values, channel_values, item_values, user_values
from headrace.feature_store.records import KINDS_FOLDED, fact_of
from headrace.feature_store.rules import Rules
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.errors import FailedPreconditionError, OverloadedError
from headrace.runtime.eventlog import EventLog, LoggedRecord

_MOST_CALLS = 4
_RETRY_AFTER_S = 5.0
_PART_VALUES = 1 << 19


@dataclass(frozen=True, slots=True)
class Labels:
    """Of whom and of what, and when: columns of one length, or empty where the call names none of it."""

    user_keys: Sequence[str]
    ordinals: NDArray[np.uint32]
    # offsets, or microseconds of the log's time
    moments: NDArray[np.int64]
    by_time: bool
    channel: int = 0
    # as in `Wanted`
    store_id: str = ""


@dataclass(frozen=True, slots=True)
class PastFeatures:
    """Features of some labels (places in the request), by moment."""

    labels: NDArray[np.uint32]
    user: Values
    items: Values
    channel: Values
    offsets: NDArray[np.int64]
    now_us: NDArray[np.int64]


class PointInTime:
    """Answers one call at a time on a thread of its own; few may wait."""

    def __init__(
        self, log: EventLog, snapshots: Snapshots, rules: Rules, views: Sequence[WindowedView], read_limit: int
    ) -> None:
        self._log = log
        self._snapshots = snapshots
        self._rules = rules
        self._views = views
        self._read_limit = read_limit
        self._turn = asyncio.Lock()
        self._calls = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feature-store-past")

    async def features(
        self, selection: Selection, labels: Labels, offset: int, now_us: int
    ) -> AsyncGenerator[PastFeatures, None]:
        """A row for every label, in parts. `offset` and `now_us` are the serving state's: no moment is after them.

        FailedPreconditionError: a moment that is not over, or whose records the log holds no more.
        OverloadedError: too many calls wait.
        """
        _check_over(labels, offset, now_us)
        loop = asyncio.get_running_loop()
        async with self._in_turn():
            past = await loop.run_in_executor(self._thread, self._begin, selection, labels)
            await self._check_held(past.state.offset)
            read_to = past.state.offset
            while past.is_unfinished:
                records = await self._log.read(read_to, limit=self._read_limit, kinds=KINDS_FOLDED)
                read_to = records[-1].offset if records else read_to
                part = await loop.run_in_executor(self._thread, _fold, past, records)
                if part is not None:
                    yield part

    def _begin(self, selection: Selection, labels: Labels) -> PastFold:
        first = int(labels.moments.min())

        def is_before(state: State) -> bool:
            at = state.now_us if labels.by_time else state.offset
            return at <= first and all(view in state.views for view in selection.views)

        state = self._snapshots.newest(self._rules, self._views, is_before)
        state.rules = replace(self._rules, row_sample_rate=0.0)
        return PastFold(state, selection, labels)

    async def _check_held(self, offset: int) -> None:
        first = await self._log.read(0, limit=1)
        if first and first[0].offset > offset + 1:
            raise FailedPreconditionError(
                f"the log begins at offset {first[0].offset}, and no snapshot before the first moment is kept"
            )

    @asynccontextmanager
    async def _in_turn(self) -> AsyncGenerator[None, None]:
        if self._calls >= _MOST_CALLS:
            raise OverloadedError(f"{self._calls} calls for the past are being answered", _RETRY_AFTER_S)
        self._calls += 1
        try:
            async with self._turn:
                yield
        finally:
            self._calls -= 1

    def close(self) -> None:
        self._thread.shutdown()


def _fold(past: PastFold, records: list[LoggedRecord]) -> PastFeatures | None:
    return past.fold(map(fact_of, records))


def _check_over(labels: Labels, offset: int, now_us: int) -> None:
    last = int(labels.moments.max())
    if labels.by_time and last >= now_us:
        raise FailedPreconditionError(f"the log's time is {now_us}, and {last} is not over", _RETRY_AFTER_S)
    if not labels.by_time and last > offset:
        raise FailedPreconditionError(f"folded up to {offset}, {last} was asked for", _RETRY_AFTER_S)


class PastFold:
    """A state on its way through the log, and how many labels it has passed."""

    def __init__(self, state: State, selection: Selection, labels: Labels) -> None:
        self.state = state
        self._selection = selection
        self._labels = labels
        self._order_L = np.argsort(labels.moments, kind="stable")
        self._moments = labels.moments[self._order_L].tolist()
        self._read: list[PastFeatures] = []
        self._done = self._told = 0

    @property
    def is_unfinished(self) -> bool:
        return self._told < len(self._moments)

    def fold(self, facts: Iterable[Fact]) -> PastFeatures | None:
        """Folds the facts that follow, and reads what is due meanwhile; without facts, all that is left.

        Answers what was read since the last answer, when that is much or all.
        """
        is_end = True
        for fact in facts:
            is_end = False
            self._read_due(fact)
            if self._done == len(self._moments):
                break
            self.state.apply(fact)
        if is_end:
            self._read_until(len(self._moments))
        waiting = self._done - self._told
        if not waiting or (self._done < len(self._moments) and waiting * self._width() < _PART_VALUES):
            return None
        part, self._read, self._told = _joined(self._read), [], self._done
        return part

    def _width(self) -> int:
        selection = self._selection
        return len(selection.user.names) + len(selection.item.names) + len(selection.channel.names) + 1

    def _read_due(self, fact: Fact) -> None:
        """Reads the labels whose moment is over before `fact`."""
        beyond = fact.offset
        if self._labels.by_time:
            beyond = fact.time_us if isinstance(fact, UserAct) else 0
        end = self._done
        while end < len(self._moments) and self._moments[end] < beyond:
            end += 1
        self._read_until(end)

    def _read_until(self, end: int) -> None:
        # by pieces: labels of one moment may be many
        while self._done < end:
            until = min(end, self._done + max(1, _PART_VALUES // self._width()))
            self._read.append(self._features(self._order_L[self._done : until]))
            self._done = until

    def _features(self, places: NDArray[np.intp]) -> PastFeatures:
        labels, state = self._labels, self.state
        keys = [labels.user_keys[place] for place in places.tolist()] if labels.user_keys else [""]
        ordinals = labels.ordinals[places] if len(labels.ordinals) else labels.ordinals
        items = item_values(state, self._selection, keys, ordinals, labels.store_id)
        channel = channel_values(state, self._selection, labels.channel)
        users = [user_values(state, self._selection, key) for key in keys]
        count = len(places)
        offset = labels.moments[places] if not labels.by_time else np.full(count, state.offset)
        return PastFeatures(
            places.astype(np.uint32),
            np.broadcast_to(np.stack(users), (count, len(self._selection.user.names))),
            items if len(labels.ordinals) else np.empty((count, 0), np.float32),
            np.broadcast_to(channel, (count, len(channel))),
            offset,
            np.full(count, state.now_us),
        )


def _joined(parts: Sequence[PastFeatures]) -> PastFeatures:
    return PastFeatures(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.channel for part in parts]),
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.now_us for part in parts]),
    )
