"""Cells of a file as values of fields, by a rule; what cannot be one is told in a sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.datasets.importing.mapping import Rule
from headrace.datasets.importing.targets import Sort, Target
from headrace.datasets.times import timestamp, us

Cells = Mapping[str, Any]
# from a cell that is not empty
Convert = Callable[[Any], Any]

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_DIGITS = re.compile(r"[+-]?\d{1,300}", re.ASCII)
_PER_UNIT_US = {"s": Decimal(1_000_000), "ms": Decimal(1_000), "us": Decimal(1), "ns": Decimal("0.001")}
_EPOCH = datetime(1970, 1, 1)
# larger numbers are no times, and would take long to write out
_MOST_DIGITS = 30
_EXACT = 2**53


class UnmappedError(ValueError):
    """A cell that cannot be what it should be."""


def cell(cells: Cells, column: str) -> Any:
    """A row's cell; `a.b` is b within a, when there is no column of the whole name. None where there is none."""
    value: Any = cells.get(column) if column in cells else _nested(cells, column)
    # what pandas writes where nothing is
    return None if isinstance(value, float) and math.isnan(value) else value


def _nested(cells: Cells, column: str) -> Any:
    value: Any = cells
    for part in column.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def text_of(value: Any) -> str:
    """A cell as text: whole floats as the whole numbers that they stand for, times in ISO 8601."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
    if isinstance(value, bytes):
        return _decoded(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str | int | Decimal):
        return _whole_text(str(value))
    raise UnmappedError(f"is a {type(value).__name__}, not a text: {_shown(value)}")


def number_of(value: Any) -> float:
    """A cell as a finite number."""
    if isinstance(value, bool):
        raise UnmappedError(f"is no number: {_shown(value)}")
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        raise UnmappedError(f"is no number: {_shown(value)}")
    if not isinstance(value, str | int | float | Decimal):
        raise UnmappedError(f"is no number: {_shown(value)}")
    try:
        number = float(value)
    except (OverflowError, ValueError) as error:
        raise UnmappedError(f"is no number: {_shown(value)}") from error
    if not math.isfinite(number):
        raise UnmappedError(f"is not finite: {_shown(value)}")
    return number


def converter(rule: Rule, target: Target, zone: str) -> Convert:
    """What makes a cell the value of a field."""
    if target.sort is Sort.TEXT:
        return lambda value: rule.prefix + text_of(value)
    if target.sort is Sort.TEXTS:
        return lambda value: [rule.prefix + part for part in _parts(value, rule.split)]
    if target.sort is Sort.NUMBER:
        return lambda value: number_of(value) * rule.factor
    if target.sort is Sort.WHOLE:
        return lambda value: _whole(value, rule.factor, target.most)
    if target.sort is Sort.TIME:
        return _time_converter(rule, ZoneInfo(rule.zone or zone))
    if target.sort is Sort.FLAG:
        return _flag
    choices = target.choices or {}
    return lambda value: _choice(text_of(value), choices)


def _whole_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnmappedError(f"is not UTF-8: {_shown(text)}") from error
    return text


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UnmappedError(f"is not UTF-8: {_shown(value)}") from error


def _parts(value: Any, split: str | None) -> list[str]:
    if isinstance(value, list | tuple):
        return [text_of(part) for part in value if part is not None]
    text = text_of(value)
    return [part.strip() for part in text.split(split) if part.strip()] if split else [text]


def _whole(value: Any, factor: float, most: int) -> int:
    number = number_of(value) * factor
    if not math.isfinite(number):
        raise UnmappedError(f"is not finite: {_shown(value)}")
    # what is whole as it stands keeps all of its digits
    whole = int(value) if factor == 1 and _is_whole(value) else round(number)
    if abs(number - whole) > max(1e-9, abs(number) * 1e-15):
        raise UnmappedError(f"must be a whole number, got {_shown(value)}")
    if not -most - 1 <= whole <= most:
        raise UnmappedError(f"must be at most {most}, got {_shown(value)}")
    return whole


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and bool(_DIGITS.fullmatch(value.strip())))


def _flag(value: Any) -> bool:
    word = text_of(value).strip().lower()
    if word in ("true", "1", "yes"):
        return True
    if word in ("false", "0", "no"):
        return False
    raise UnmappedError(f"must be true or false, got {_shown(value)}")


def _choice(text: str, choices: Mapping[str, int]) -> int:
    word = text.strip().lower().replace("_", "-").replace(" ", "-")
    if word not in choices:
        raise UnmappedError(f"must be one of {', '.join(choices)}, got {_shown(text)}")
    return choices[word]


def _time_converter(rule: Rule, zone: ZoneInfo) -> Convert:
    since = datetime.fromisoformat(rule.since) if rule.since else _EPOCH
    local_since = since.astimezone(zone).replace(tzinfo=None) if since.tzinfo else since
    later = timedelta(days=rule.add_days)

    def convert(value: Any) -> Timestamp:
        try:
            moment = _moment(value, rule.format, zone, local_since if rule.since else None)
            # by the calendar: a day on which clocks change has 23 or 25 hours
            shifted = (moment.astimezone(zone).replace(tzinfo=None) + later).replace(tzinfo=zone) if later else moment
            return timestamp(us(shifted.astimezone(UTC)))
        except (ValueError, OverflowError) as error:
            reason = str(error) if isinstance(error, UnmappedError) else f"is no time: {_shown(value)} ({error})"
            raise UnmappedError(reason) from error

    return convert


def _moment(value: Any, form: str | None, zone: ZoneInfo, since: datetime | None) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=zone)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=zone)
    if form in ("days", "weeks"):
        days = _whole(value, 1, 10_000_000) * (7 if form == "weeks" else 1)
        return ((since or _EPOCH) + timedelta(days=days)).replace(tzinfo=zone)
    if form in _PER_UNIT_US:
        return _counted(value, _PER_UNIT_US[form], since.replace(tzinfo=zone) if since else _EPOCH.replace(tzinfo=UTC))
    if not isinstance(value, str):
        raise UnmappedError(f"is a number: its unit is to be said by `format`, got {_shown(value)}")
    text = value.strip()
    parsed = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)


def _counted(value: Any, per_unit_us: Decimal, since: datetime) -> datetime:
    number_of(value)
    exact = Decimal(value.strip()) if isinstance(value, str) else Decimal(value)
    if exact and not -_MOST_DIGITS < exact.adjusted() < _MOST_DIGITS:
        raise UnmappedError(f"is no time: {_shown(value)}")
    return since.astimezone(UTC) + timedelta(microseconds=int(exact * per_unit_us))


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        return f"a number of {value.bit_length()} bits"
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"
