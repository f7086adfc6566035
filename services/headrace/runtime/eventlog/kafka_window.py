"""A consumer of a topic's one partition that reads on from where it stands, and keeps what it has read last.

Appending, following and answering read the same end of the topic, which is so fetched once.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from headrace.runtime.errors import FailedPreconditionError, UnavailableError
from headrace.runtime.eventlog.kafka_records import offset_of
from headrace.runtime.eventlog.kafka_url import KafkaUrl

Options = dict[str, str | int | float | bool]

_FETCH_S = 10.0
_RETRY_S = 0.5
_WINDOW_RECORDS = 10_000
_WINDOW_BYTES = 16 << 20
_READ_AT_ONCE = 1_000

CONSUMER: Options = {
    # nothing is committed: each reader keeps its offset with its state
    "group.id": "headrace-event-log",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "queued.max.messages.kbytes": 16_384,
    # going to another offset waits for the fetch that is under way; records end it at once
    "fetch.wait.max.ms": 100,
    "fetch.error.backoff.ms": 100,
}


class Window:
    """Records by offset, from a consumer that is made when it is needed."""

    def __init__(self, common: Options, url: KafkaUrl) -> None:
        self._common = common
        self._url = url
        self._consumer: Consumer | None = None
        self._read: deque[Message] = deque()
        self._bytes = 0
        self._next = -1

    @property
    def is_nowhere(self) -> bool:
        return self._next < 0

    def holds(self, start: int) -> bool:
        """Whether it can answer from `start` on without going back."""
        return not self.is_nowhere and self._next - len(self._read) <= start <= self._next

    def records(self, start: int, until: int) -> list[Message]:
        """The records with start <= offset < until. UnavailableError: they did not come in time."""
        self._go_to(start)
        end_s = time.monotonic() + _FETCH_S
        while self._next < until:
            if not self._take(min(until - self._next, _READ_AT_ONCE), end_s - time.monotonic()):
                raise UnavailableError(f"event log {self._url}: no records came in {_FETCH_S:g} s", _RETRY_S)
        first = self._next - len(self._read)
        found = list(islice(self._read, start - first, until - first))
        self._shrink()
        return found

    def wait(self, start: int, timeout_s: float) -> int:
        """Up to where records are there, `start` when none came in time."""
        self._go_to(start)
        if self._next == start:
            self._take(1, timeout_s)
        return self._next

    def _go_to(self, start: int) -> None:
        if self.holds(start):
            return
        if self._consumer is None:
            self._consumer = Consumer(CONSUMER | self._common)
        self._consumer.assign([TopicPartition(self._url.topic, 0, start)])
        self._read.clear()
        self._bytes, self._next = 0, start

    def _take(self, count: int, timeout_s: float) -> bool:
        """Whether anything came."""
        assert self._consumer is not None, "going somewhere comes first"
        came = self._consumer.consume(count, max(timeout_s, 0))
        for message in came:
            if (error := message.error()) is not None:
                self._fail(error)
            elif (offset := offset_of(message)) == self._next:
                self._read.append(message)
                self._bytes += len(message)
                self._next += 1
            elif offset > self._next:
                raise FailedPreconditionError(
                    f"event log {self._url}: offset {self._next} is missing before {offset};"
                    " is the topic compacted, or does somebody else write to it?"
                )
        return bool(came)

    def _fail(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self._next = -1
            raise FailedPreconditionError(f"event log {self._url}: {error.str()}")
        if error.fatal() or not error.retriable():
            raise UnavailableError(f"event log {self._url}: {error.str()}", _RETRY_S)

    def _shrink(self) -> None:
        while len(self._read) > _WINDOW_RECORDS or (self._bytes > _WINDOW_BYTES and len(self._read) > 1):
            self._bytes -= len(self._read.popleft())

    def close(self) -> None:
        consumer, self._consumer, self._next = self._consumer, None, -1
        self._read.clear()
        if consumer is not None:
            consumer.close()
