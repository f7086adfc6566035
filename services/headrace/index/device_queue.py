"""One thread that owns an accelerator: calls made at the same time become one matrix product.

GPU work from many threads contends for the device and, in Faiss, is not safe even for reads.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
C = TypeVar("C")
R = TypeVar("R")

Answer = Callable[[Sequence[C]], Sequence[R]]


class DeviceQueue(Generic[C, R]):
    """Runs work on its own thread, and answers waiting calls in batches of at most `limit`.

    `answer` gets a batch of calls and gives a result for each, in order.
    """

    def __init__(self, answer: Answer[C, R], *, limit: int = 64) -> None:
        self._answer = answer
        self._limit = limit
        self._waiting: queue.SimpleQueue[_Call[C, R] | _Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="device-owner", daemon=True)
        self._thread.start()

    def ask(self, call: C) -> R:
        """The answer to a call; blocks until the batch that it is in was answered."""
        waiting: _Call[C, R] = _Call(call)
        self._waiting.put(waiting)
        return waiting.done.result()

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, run on the owner's thread."""
        done: Future[T] = Future()
        self._waiting.put(_Work(lambda: _settle(done, work)))
        return done.result()

    @property
    def waiting(self) -> int:
        """How much has been asked and not begun, about."""
        return self._waiting.qsize()

    def close(self) -> None:
        """Ends the thread once everything that was asked before is done."""
        self._waiting.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (first := self._waiting.get()) is not None:
            if isinstance(first, _Work):
                first.work()
                continue
            calls, after = self._batch(first)
            _settle_all(calls, self._answer)
            if isinstance(after, _Work):
                after.work()
            elif after is not None:
                return

    def _batch(self, first: _Call[C, R]) -> tuple[list[_Call[C, R]], _Work | _End | None]:
        calls = [first]
        while len(calls) < self._limit:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if not isinstance(item, _Call):
                return calls, _END if item is None else item
            calls.append(item)
        return calls, None


class _End:
    """The queue was closed."""


_END = _End()


class _Call(Generic[C, R]):
    def __init__(self, call: C) -> None:
        self.call = call
        self.done: Future[R] = Future()


class _Work:
    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work


def _settle(done: Future[T], work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except Exception as error:  # noqa: BLE001  # the thread must survive; whoever asked gets the error
        done.set_exception(error)


def _settle_all(calls: Sequence[_Call[C, R]], answer: Answer[C, R]) -> None:
    try:
        results = answer([waiting.call for waiting in calls])
    except Exception as error:  # noqa: BLE001  # the thread must survive; whoever asked gets the error
        for waiting in calls:
            waiting.done.set_exception(error)
        return
    for waiting, result in zip(calls, results, strict=True):
        waiting.done.set_result(result)
