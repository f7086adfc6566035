"""What records say: their payloads as messages. One that cannot be read is told by its offset.

Only what was parsed is ever appended, so such a record is damaged, or somebody else's. A fold that can do without it
passes over it, says so and counts it: else one bad byte would end the fold at its offset, and again at every start.
All folds pass over the same records, so they go on agreeing. What cannot be done without (who is to be forgotten,
which number a product has) is an error.
"""

from __future__ import annotations

import logging
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from headrace.runtime.errors import CorruptDataError
from headrace.runtime.eventlog.log import LoggedRecord
from headrace.runtime.telemetry import counter

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

_unreadable = counter("headrace.event_log.unreadable", "{record}", "records passed over: their payload is no message")


def payload_of(kind: type[M], record: LoggedRecord) -> M:
    """The record's payload. CorruptDataError names the offset."""
    try:
        return kind.FromString(record.payload)
    except DecodeError as error:
        raise corrupt(record, str(error)) from error


def corrupt(record: LoggedRecord, reason: str) -> CorruptDataError:
    return CorruptDataError(f"offset {record.offset} of the event log: no {record.kind}: {reason}")


def pass_over(record: LoggedRecord, error: CorruptDataError) -> None:
    """Says that a fold goes on without a record."""
    log.error("record_unreadable", extra={"offset": record.offset, "kind": record.kind, "reason": str(error)})
    _unreadable.add(1, {"kind": record.kind})
