"""The one partition of a topic, through librdkafka: its bounds, its records by offset, and appending to it.

Every call may block and belongs in a thread. Offsets here are Kafka's own and start at 0.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from headrace.runtime.errors import FailedPreconditionError, HeadraceError, UnavailableError
from headrace.runtime.eventlog.kafka_records import Written
from headrace.runtime.eventlog.kafka_url import KafkaUrl
from headrace.runtime.eventlog.kafka_window import CONSUMER, Options, Window

_ASK_S = 5.0
_DELIVERY_S = 10.0
_RETRY_S = 0.5
# what brokers take unless they are told otherwise, with room for the batch around it
LARGEST_BYTES = 900_000

_COMMON: Options = {
    # what goes wrong is told by the errors of the calls
    "log_level": 0,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.interval.ms": 30_000,
}
_PRODUCER: Options = {
    "acks": "all",
    "enable.idempotence": True,
    "delivery.timeout.ms": int(_DELIVERY_S * 1_000),
    # a group is handed over whole and then flushed
    "linger.ms": 5,
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
        if self._asker is None:
            self._asker = Consumer(CONSUMER | self._common)
        end_s = time.monotonic() + _ASK_S
        try:
            while (partitions := self._partitions(self._asker)) == 0:
                if time.monotonic() > end_s:
                    raise UnavailableError(f"event log {self._url}: the topic was made and is not there", _RETRY_S)
                self._create()
            cluster = self._asker.list_topics(self._url.topic, _ASK_S).cluster_id
        except KafkaException as error:
            raise self._unavailable(error) from error
        if partitions > 1:
            raise FailedPreconditionError(
                f"event log {self._url}: has {partitions} partitions; a log is one order, so it must have 1"
            )
        return f"{cluster}/{self._url.topic}"

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

        def tell(error: KafkaError | None, message: Message) -> None:
            told.append((error, message.offset()))

        try:
            for key, value, headers in messages:
                self._producer.produce(self._url.topic, value, key, 0, on_delivery=tell, headers=headers)
            self._producer.flush(_DELIVERY_S + 5)
        except (KafkaException, BufferError) as error:
            self._drop_producer()
            raise UnavailableError(f"event log {self._url}: {error}", _RETRY_S) from error
        offsets = [offset for error, offset in told if error is None and offset is not None]
        if len(offsets) < len(messages):
            self._drop_producer()
            failed = next((error.str() for error, _ in told if error is not None), "no answer")
            raise UnavailableError(f"event log {self._url}: {failed}", _RETRY_S)
        return offsets

    def _drop_producer(self) -> None:
        """What it has not sent is not sent later; one that has lost count of what it sent is of no use any more."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(0)

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
        self._drop_producer()
