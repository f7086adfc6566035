"""Streams that would not end by themselves: a server that stops ends them where nothing is lost by it.

A watch ends between two messages. A stream of requests is taken no further, what was read of it is answered,
and then it ends; both end in UNAVAILABLE, so that the caller begins anew at another server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from headrace.runtime.errors import UnavailableError

T = TypeVar("T")


class StoppingError(UnavailableError):
    """The server stops; the same is to be asked of another one, or of the next."""

    def __init__(self) -> None:
        super().__init__("the server stops: what it acknowledged is kept, begin the stream anew")


class OpenStreams:
    """The streams of one server that wait for something to happen."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Task[Any]] = set()
        self._is_stopping = False

    async def unless_stopping(self, wait: Awaitable[T]) -> T:
        """What is awaited. StoppingError: the server stops meanwhile, or does already."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream is served by a task")
        if self._is_stopping:
            # awaited all the same: what was begun is not to be left behind
            task.cancel()
        else:
            self._waiting.add(task)
        try:
            return await wait
        except asyncio.CancelledError:
            # a call that its caller gave up is no longer among those that `end` took out
            if task in self._waiting:
                raise
            task.uncancel()
            raise StoppingError from None
        finally:
            self._waiting.discard(task)

    def end(self) -> None:
        """Ends all waits, now and later."""
        self._is_stopping = True
        waiting, self._waiting = self._waiting, set()
        for task in waiting:
            task.cancel()


class Requests:
    """A caller's stream of requests, which ends where the server stops; `was_cut` says that it was that."""

    def __init__(self, requests: AsyncIterator[Any], streams: OpenStreams) -> None:
        self._requests = requests
        self._streams = streams
        self.was_cut = False

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._streams.unless_stopping(anext(self._requests))
        except StoppingError:
            self.was_cut = True
            raise StopAsyncIteration from None
