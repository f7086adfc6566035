"""Group commit: what concurrent callers append while a commit runs goes into the next one, together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from headrace.runtime.errors import OverloadedError
from headrace.runtime.eventlog.log import Appended, Record

Commit = Callable[[Sequence[Record]], Awaitable[list[Appended]]]

# a commit takes at most this many records, so that one caller's flood does not hold the others
_COMMIT_LIMIT = 5_000
_INT64 = range(-(2**63), 2**63)


@dataclass
class _Waiting:
    records: Sequence[Record]
    done: asyncio.Future[list[Appended]]


class GroupCommit:
    """Runs `commit`, once at a time, over the records of all callers that wait.

    `max_waiting` bounds the records that wait; beyond it `append` is refused.
    """

    def __init__(self, commit: Commit, max_waiting: int) -> None:
        self._commit = commit
        self._waiting: list[_Waiting] = []
        self._waiting_records = 0
        self._max_waiting = max_waiting
        self._committer: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """Where the records are, once they are durable. OverloadedError: too much waits."""
        if not records:
            return []
        if self._waiting_records + len(records) > self._max_waiting:
            raise OverloadedError(f"{self._waiting_records} records wait to be written, {len(records)} more refused")
        _check_times(records)
        waiting = _Waiting(records, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._waiting_records += len(records)
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all(), name="eventlog-commit")
        return await asyncio.shield(waiting.done)

    async def finish(self) -> None:
        """Returns when nothing waits."""
        if self._committer is not None:
            await self._committer

    async def _commit_all(self) -> None:
        while self._waiting:
            group = self._take_group()
            records = [record for waiting in group for record in waiting.records]
            try:
                appended = await self._commit(records)
            except Exception as error:  # noqa: BLE001  # each caller gets it, and the next group must go on
                _fail(group, error)
            else:
                _resolve(group, appended)
            self._waiting_records -= len(records)

    def _take_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while self._waiting and (not group or size + len(self._waiting[0].records) <= _COMMIT_LIMIT):
            group.append(self._waiting.pop(0))
            size += len(group[-1].records)
        return group


def placed(
    records: Sequence[Record], known: Mapping[str, int], end: int
) -> tuple[list[Appended], list[tuple[int, Record]]]:
    """Where each record belongs after offset `end`, and those that are new with their offsets.

    `known` are the offsets of those event ids that the log holds already.
    """
    offsets = dict(known)
    appended: list[Appended] = []
    new: list[tuple[int, Record]] = []
    for record in records:
        offset = offsets.get(record.event_id)
        if offset is not None:
            appended.append(Appended(offset, duplicate=True))
            continue
        end += 1
        offsets[record.event_id] = end
        appended.append(Appended(end, duplicate=False))
        new.append((end, record))
    return appended, new


def _check_times(records: Sequence[Record]) -> None:
    for record in records:
        if record.time_us not in _INT64:
            raise OverflowError(f"time_us of {record.event_id!r} must fit 64 bits, got {record.time_us}")


def _resolve(group: Sequence[_Waiting], appended: Sequence[Appended]) -> None:
    start = 0
    for waiting in group:
        part = list(appended[start : start + len(waiting.records)])
        start += len(waiting.records)
        if not waiting.done.done():
            waiting.done.set_result(part)


def _fail(group: Sequence[_Waiting], error: Exception) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
