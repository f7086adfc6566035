"""Dead letters as lines of JSON that a person can mend: written, read back, and changed by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from headrace.runtime.errors import InvalidRequestError
from headrace.v1.common_pb2 import UserEvent
from headrace.v1.ingest_pb2 import DeadLetter, MendedDeadLetter


def line_of(letter: DeadLetter) -> str:
    """A letter in a line: its id, why it was refused, and the event, which is to be mended."""
    faults = [f"{violation.field}: {violation.description}" for violation in letter.violations]
    told = {"id": letter.id, "reason": letter.reason, "faults": faults, "event": _plain(letter.event)}
    return json.dumps(told, ensure_ascii=False)


def mended_of(lines: Iterable[str], name: str) -> Iterator[MendedDeadLetter]:
    """The letters in lines of JSON; InvalidRequestError tells which line is none. Only `id` and `event` are read."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            letter = json.loads(line)
            _check_text(json.dumps(letter, ensure_ascii=False))
            yield MendedDeadLetter(id=letter["id"], event=ParseDict(letter["event"], UserEvent()))
        except (ValueError, KeyError, TypeError, RecursionError, ParseError) as error:
            raise InvalidRequestError.of(f"{name}:{number}", f"must be a letter's id and event: {error}") from error


def changed(event: UserEvent, settings: Sequence[str]) -> UserEvent:
    """The event with fields set as `product_details.0.price=9.5` says; an empty value takes a field out."""
    plain = _plain(event)
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not (path and equals):
            raise InvalidRequestError.of("--set", f"must be FIELD=VALUE, got {setting!r}")
        try:
            _check_text(setting)
            _set(plain, path.split("."), value)
        except (IndexError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidRequestError.of("--set", f"no such field in this event: {path!r}") from error
    try:
        return ParseDict(plain, UserEvent())
    except ParseError as error:
        raise InvalidRequestError.of("--set", str(error)) from error


def _check_text(text: str) -> None:
    """ValueError for halves of characters, at which protobuf's parser fails in a way of its own (SystemError)."""
    text.encode()


def _plain(event: UserEvent) -> dict[str, Any]:
    return MessageToDict(event, preserving_proto_field_name=True)


def _set(holder: Any, path: Sequence[str], value: str) -> None:
    *parents, last = path
    for name in parents:
        holder = holder[int(name)] if isinstance(holder, list) else holder.setdefault(name, {})
    key: Any = int(last) if isinstance(holder, list) else last
    if value:
        holder[key] = value
    else:
        holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
