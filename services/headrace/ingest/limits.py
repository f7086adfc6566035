"""Limits of single fields, each broken one as its path and what is wrong; what all validations speak of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.runtime.clock import MICROSECONDS

ID_BYTES = 128
MAX_PRICE = 1e9
# years 1 .. 9999: beyond them google.protobuf.Timestamp is not valid
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799

# field path and description
Found = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: its name, the path of the field, what was wrong with what was given."""

    reason: str
    field: str
    description: str


def time_us(timestamp: Timestamp) -> int:
    """Unix microseconds; floors what is finer."""
    return timestamp.seconds * MICROSECONDS + timestamp.nanos // 1_000


def bad_time(field: str, given: Timestamp) -> Found:
    """A time that google.protobuf.Timestamp does not have."""
    if not (MIN_SECONDS <= given.seconds <= MAX_SECONDS and 0 <= given.nanos < 1_000_000_000):
        yield field, f"must be within the years 1 .. 9999, got {given.seconds} s and {given.nanos} ns"


def over(limit_bytes: int, field: str, value: str) -> Found:
    # a character has at most four bytes
    if len(value) * 4 > limit_bytes and (size := len(value.encode())) > limit_bytes:
        yield field, f"must have at most {limit_bytes} bytes, got {size}"


def too_many(limit: int, field: str, count: int) -> Found:
    if count > limit:
        yield field, f"must be at most {limit}, got {count}"


def all_over(limit: int, limit_bytes: int, field: str, values: Iterable[str]) -> Found:
    number = -1
    for number, value in enumerate(values):
        yield from over(limit_bytes, f"{field}[{number}]", value)
    yield from too_many(limit, field, number + 1)


def labels_over(limit: int, field: str, labels: Iterable[tuple[str, str]]) -> Found:
    pairs = list(labels)
    yield from too_many(limit, field, len(pairs))
    for name, value in pairs:
        yield from over(256, f"{field}[{shown(name)}]", name)
        yield from over(256, f"{field}[{shown(name)}]", value)


def shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
