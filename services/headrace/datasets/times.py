"""Times as Unix microseconds, as moments in UTC and as protobuf messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def us(time: datetime) -> int:
    """Unix microseconds; a time without a zone is taken as UTC."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def at(time_us: int) -> datetime:
    """The moment of a Unix time in microseconds, in UTC."""
    return _EPOCH + time_us * _MICROSECOND


def timestamp(time_us: int) -> Timestamp:
    """A protobuf time."""
    seconds, rest = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000)
