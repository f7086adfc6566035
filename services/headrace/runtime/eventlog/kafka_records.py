"""A record of the event log as a Kafka message: its key and payload as they are, the rest in headers."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import Message

from headrace.runtime.errors import CorruptDataError
from headrace.runtime.eventlog.log import LoggedRecord, Record, partition_of

# key, value, headers
Written = tuple[bytes, bytes, list[tuple[str, str | bytes | None]]]

_KIND, _EVENT_ID, _TIME_US, _TRACEPARENT = "kind", "event-id", "time-us", "traceparent"
# of records that were restored from another log: its time, and offsets that had no record there
_APPEND_TIME_US, _GAP = "append-time-us", "gap"
GAP: Written = (b"", b"", [(_GAP, b"")])


def restored_message(record: LoggedRecord) -> Written:
    key, payload, headers = message_of(record)
    return key, payload, [*headers, (_APPEND_TIME_US, str(record.append_time_us).encode())]


def message_of(record: Record | LoggedRecord) -> Written:
    headers: list[tuple[str, str | bytes | None]] = [
        (_KIND, record.kind.encode()),
        (_EVENT_ID, record.event_id.encode()),
        (_TIME_US, str(record.time_us).encode()),
    ]
    if record.traceparent:
        headers.append((_TRACEPARENT, record.traceparent.encode()))
    return record.key.encode(), record.payload, headers


def size_of(record: Record) -> int:
    """Bytes of the message, about."""
    return len(record.payload) + len(record.key.encode()) + len(record.event_id.encode()) + 100


def logged_record(message: Message) -> LoggedRecord:
    """The record with its place in the log, which counts from 1, and the time that the broker keeps of it.

    CorruptDataError: somebody else wrote it.
    """
    headers = _headers(message)
    _, time_ms = message.timestamp()
    try:
        key = (message.key() or b"").decode()
        return LoggedRecord(
            offset=offset_of(message) + 1,
            partition=partition_of(key),
            append_time_us=_int64(headers.get(_APPEND_TIME_US, time_ms * 1_000)),
            kind=headers[_KIND].decode(),
            key=key,
            event_id=headers[_EVENT_ID].decode(),
            time_us=_int64(headers[_TIME_US]),
            payload=message.value() or b"",
            traceparent=headers.get(_TRACEPARENT, b"").decode(),
        )
    except (KeyError, ValueError) as error:
        raise _foreign(message) from error


def event_id_of(message: Message) -> str | None:
    """None for an offset without a record. CorruptDataError: somebody else wrote it."""
    headers = _headers(message)
    if _GAP in headers:
        return None
    try:
        return headers[_EVENT_ID].decode()
    except (KeyError, ValueError) as error:
        raise _foreign(message) from error


def _headers(message: Message) -> dict[str, bytes]:
    # what is fetched has a list of pairs of text and bytes, or None for no bytes
    pairs: Iterable[tuple[str, bytes | None]] = message.headers() or ()  # type: ignore[assignment]
    return {name: value or b"" for name, value in pairs}


def _int64(said: bytes | int) -> int:
    """ValueError when it is no number, or one that no time can be."""
    number = int(said)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"must be an int64, got {number}")
    return number


def offset_of(message: Message) -> int:
    """The partition's own."""
    offset = message.offset()
    assert offset is not None, "only what was fetched is asked"
    return offset


def _foreign(message: Message) -> CorruptDataError:
    return CorruptDataError(f"topic {message.topic()}, offset {message.offset()}: not a record of the event log")
