"""The one partition of a topic, through librdkafka: its bounds, its records by offset, and appending to it.

Every call may block and belongs in a thread. Offsets here are Kafka's own and start at 0.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from itertools import islice

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from headrace.runtime.errors import FailedPreconditionError, HeadraceError, UnavailableError
from headrace.runtime.eventlog.kafka_records import Written, offset_of
from headrace.runtime.eventlog.kafka_url import KafkaUrl

_ASK_S = 5.0
_FETCH_S = 10.0
_DELIVERY_S = 10.0
_RETRY_S = 0.5
# what was read last is kept, since appending, following and answering read the same end of the topic
_WINDOW_RECORDS = 10_000
_WINDOW_BYTES = 16 << 20
_READ_AT_ONCE = 1_000
LARGEST_BYTES = 16 << 20

_COMMON: dict[str, str | int | float | bool] = {
    # what goes wrong is told by the errors of the calls
    "log_level": 0,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.interval.ms": 30_000,
}
_CONSUMER: dict[str, str | int | float | bool] = {
    # nothing is committed: each reader keeps its offset with its state
    "group.id": "headrace-event-log",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "queued.max.messages.kbytes": 16_384,
    # going to another offset waits for the fetch that is under way; records end it at once
    "fetch.wait.max.ms": 50,
    "fetch.error.backoff.ms": 100,
}
_PRODUCER: dict[str, str | int | float | bool] = {
    "acks": "all",
    "enable.idempotence": True,
    "delivery.timeout.ms": int(_DELIVERY_S * 1_000),
    # a group is handed over whole and then flushed
    "linger.ms": 5,
    "message.max.bytes": LARGEST_BYTES,
}
# kept for ever but for `trim`; one clock, the broker's
_TOPIC = {"retention.ms": "-1", "retention.bytes": "-1", "message.timestamp.type": "LogAppendTime"}


class Topic:
    """Partition 0 of a topic that has no other one; the topic is made when it is missing."""

    def __init__(self, url: KafkaUrl) -> None:
        self._url = url
        self._common = _COMMON | {"bootstrap.servers": url.brokers} | dict(url.options)
        self._partition = TopicPartition(url.topic, 0)
        self._asker: Consumer | None = None
        self._producer: Producer | None = None
        self._end = Window(self._common, url)
        self._past = Window(self._common, url)

    def open(self) -> str:
        """What the topic is called, with its cluster. FailedPreconditionError: it has several partitions."""
        asker = Consumer(_CONSUMER | self._common)
        try:
            while (partitions := self._partitions(asker)) == 0:
                self._create()
        except KafkaException as error:
            asker.close()
            raise self._unavailable(error) from error
        if partitions > 1:
            asker.close()
            raise FailedPreconditionError(
                f"event log {self._url}: has {partitions} partitions; a log is one order, so it must have 1"
            )
        self._asker = asker
        return f"{asker.list_topics(self._url.topic, _ASK_S).cluster_id}/{self._url.topic}"

    def _partitions(self, asker: Consumer) -> int:
        found = asker.list_topics(self._url.topic, _ASK_S).topics[self._url.topic]
        if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(found.error)
        return len(found.partitions)

    def _create(self) -> None:
        admin = AdminClient(self._common)
        # as many replicas as the brokers say
        wanted = NewTopic(self._url.topic, num_partitions=1, replication_factor=-1, config=_TOPIC)
        try:
            admin.create_topics([wanted], request_timeout=_ASK_S)[self._url.topic].result(_ASK_S)
        except FutureTimeoutError as error:
            raise UnavailableError(f"event log {self._url}: no topic was made in {_ASK_S:g} s", _RETRY_S) from error
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        # the brokers tell of it a little later
        time.sleep(0.05)

    def bounds(self) -> tuple[int, int]:
        """The oldest offset that there is, and the one that the next record gets."""
        assert self._asker is not None, "open() comes first"
        try:
            low, high = self._asker.get_watermark_offsets(self._partition, timeout=_ASK_S)
        except KafkaException as error:
            raise self._unavailable(error) from error
        return low, high

    def records(self, start: int, until: int) -> list[Message]:
        """The records with start <= offset < until, all of them, which must be there."""
        if self._end.holds(start) or self._end.is_nowhere:
            # nobody is behind any more
            self._past.close()
            return self._end.records(start, until)
        return self._past.records(start, until)

    def newest(self, start: int, until: int) -> list[Message]:
        """The same, for the one reader that follows the end."""
        return self._end.records(start, until)

    def has_more(self, start: int, timeout_s: float) -> int:
        """Up to where there are records after `start`; waits for one."""
        return self._end.wait(start, timeout_s)

    def append(self, messages: Sequence[Written]) -> list[int]:
        """The offsets of messages (key, value, headers), once all in-sync replicas have them."""
        if self._producer is None:
            self._producer = Producer(_PRODUCER | self._common)
        told: list[tuple[KafkaError | None, int | None]] = []
        for key, value, headers in messages:
            self._producer.produce(
                self._url.topic,
                value,
                key,
                0,
                on_delivery=lambda error, message: told.append((error, message.offset())),
                headers=headers,
            )
        waiting = self._producer.flush(_DELIVERY_S + 5)
        offsets = [offset for error, offset in told if error is None and offset is not None]
        if waiting or len(offsets) < len(messages):
            failed = next((error for error, _ in told if error is not None), "no answer")
            raise UnavailableError(f"event log {self._url}: {failed}", _RETRY_S)
        return offsets

    def delete(self, before_ms: int, newest: int) -> int:
        """Deletes what was appended before a time, but for offset `newest`; the oldest offset that is left."""
        assert self._asker is not None, "open() comes first"
        try:
            (found,) = self._asker.offsets_for_times([TopicPartition(self._url.topic, 0, before_ms)], timeout=_ASK_S)
            # negative: all are older
            first = min(found.offset, newest) if found.offset >= 0 else newest
            wanted = [TopicPartition(self._url.topic, 0, first)]
            for future in AdminClient(self._common).delete_records(wanted, request_timeout=_ASK_S).values():
                future.result(_ASK_S)
        except (KafkaException, FutureTimeoutError) as error:
            raise self._not_deleted(error) from error
        return first

    def _not_deleted(self, error: Exception) -> HeadraceError:
        said = f"event log {self._url}: cannot delete records: {error}"
        if isinstance(error, KafkaException) and error.args[0].code() == KafkaError._UNSUPPORTED_FEATURE:
            return FailedPreconditionError(said)
        return UnavailableError(said, _RETRY_S)

    def _unavailable(self, error: KafkaException) -> UnavailableError:
        return UnavailableError(f"event log {self._url}: {error.args[0].str()}", _RETRY_S)

    def close(self) -> None:
        self._end.close()
        self._past.close()
        if self._asker is not None:
            self._asker.close()
        if self._producer is not None:
            self._producer.flush(0)


class Window:
    """A consumer that reads on from where it stands, with what it has read last."""

    def __init__(self, common: dict[str, str | int | float | bool], url: KafkaUrl) -> None:
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
            self._consumer = Consumer(_CONSUMER | self._common)
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
