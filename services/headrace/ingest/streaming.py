"""Writes a stream in groups as it arrives, several groups at a time, and answers in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# what arrives meanwhile makes the next group: the slower the log, the larger the groups
_GROUPS_IN_FLIGHT = 4


async def answered_in_order(
    items: AsyncIterator[T],
    write: Callable[[Sequence[T]], Coroutine[Any, Any, Sequence[R]]],
    *,
    group_limit: int,
    unanswered_limit: int,
) -> AsyncIterator[R]:
    """One answer an item, in order. Reads no further while `unanswered_limit` items wait.

    An error of `items` or `write` ends the answers, after those of all groups before it.
    """
    groups = _Groups(write, group_limit, unanswered_limit)
    reading = asyncio.create_task(groups.read(items), name="stream-read")
    try:
        async for answers in groups.answers():
            for answer in answers:
                yield answer
        await reading
    finally:
        await groups.cancel(reading)


class _Groups(Generic[T, R]):
    """Items that arrived, and the groups that are being written."""

    def __init__(
        self, write: Callable[[Sequence[T]], Coroutine[Any, Any, Sequence[R]]], group_limit: int, unanswered_limit: int
    ) -> None:
        self._write = write
        self._group_limit = group_limit
        self._unanswered_limit = unanswered_limit
        self._unanswered = 0
        self._arrived: list[T] = []
        self._writing: deque[asyncio.Task[Sequence[R]]] = deque()
        self._ended = False
        self._arrival = asyncio.Event()
        self._room = asyncio.Event()

    async def read(self, items: AsyncIterator[T]) -> None:
        try:
            async for item in items:
                self._arrived.append(item)
                self._unanswered += 1
                self._start_group()
                await self._until_room()
        finally:
            self._ended = True
            self._arrival.set()

    async def answers(self) -> AsyncIterator[Sequence[R]]:
        while self._writing or not self._ended:
            if not self._writing:
                self._arrival.clear()
                await self._arrival.wait()
                continue
            answers = await self._writing[0]
            self._writing.popleft()
            self._start_group()
            yield answers
            self._unanswered -= len(answers)
            self._room.set()

    def _start_group(self) -> None:
        if self._arrived and len(self._writing) < _GROUPS_IN_FLIGHT:
            group = self._arrived[: self._group_limit]
            del self._arrived[: self._group_limit]
            self._writing.append(asyncio.create_task(self._write(group), name="stream-write"))
            self._arrival.set()

    async def _until_room(self) -> None:
        while self._unanswered >= self._unanswered_limit:
            self._room.clear()
            await self._room.wait()

    async def cancel(self, reading: asyncio.Task[None]) -> None:
        tasks = [reading, *self._writing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
