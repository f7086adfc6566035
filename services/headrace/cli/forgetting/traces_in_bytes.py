"""Finds a person's ids in bytes of any form: messages, JSON, packed texts, logs."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from headrace.v1.common_pb2 import UserEvent
from headrace.v1.log_pb2 import Impression, LoggedUserEvent

_FIELDS = (
    (UserEvent, "user_id"),
    (UserEvent, "visitor_id"),
    (LoggedUserEvent, "user_key"),
    (Impression, "user_key"),
)
# shorter ones stand in any file, as numbers or words of other things: they are looked for in their own forms alone
_DISTINCT_BYTES = 6
# of a longer id, or of another word; a packed text begins with the next key
_END = rb"(?=[uv]:|[^0-9A-Za-z_\-]|\Z)"
_BEGIN = rb"(?<![0-9A-Za-z_\-])"


def pattern_of(user_id: str, visitor_id: str) -> re.Pattern[bytes]:
    """What matches wherever one of the ids stands."""
    parts: list[bytes] = []
    for prefix, given in (("u:", user_id), ("v:", visitor_id)):
        if given:
            parts += _forms(prefix, given.encode())
    return re.compile(b"|".join(parts))


def _forms(prefix: str, given: bytes) -> Iterator[bytes]:
    key = prefix.encode() + given
    yield re.escape(key) + _END
    for message, name in _FIELDS:
        text = key if name == "user_key" else given
        yield re.escape(_tag(message.DESCRIPTOR.fields_by_name[name].number) + _varint(len(text)) + text)
    if len(given) >= _DISTINCT_BYTES:
        yield _BEGIN + re.escape(given) + _END


def _tag(number: int) -> bytes:
    return _varint(number << 3 | 2)


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + _varint(rest)


def files_with(pattern: re.Pattern[bytes], paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    """The files that hold a match, and how many they hold. A file that vanishes meanwhile holds none."""
    for path in paths:
        try:
            with path.open("rb") as file:
                count = _count(pattern, file.fileno())
        except FileNotFoundError:
            continue
        if count:
            yield path, count


def _count(pattern: re.Pattern[bytes], handle: int) -> int:
    try:
        with mmap.mmap(handle, 0, access=mmap.ACCESS_READ) as data:
            return sum(1 for _ in pattern.finditer(data))
    except ValueError:  # an empty file cannot be mapped
        return 0
