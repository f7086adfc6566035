"""Finds and empties people's records in the SQLite log, and leaves no copy of them in its files."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from headrace.runtime.eventlog.log import ERASED, LoggedRecord
from headrace.runtime.sqlite import transaction

COLUMNS = '"offset", partition, append_time_us, kind, key, event_id, time_us, payload, traceparent'
FOUND = 1_000
_UPDATE = 'UPDATE records SET kind = ?, key = ?, event_id = ?, payload = ?, traceparent = ? WHERE "offset" = ?'


def find(
    db: sqlite3.Connection, keys: Collection[str], text: bytes, after_offset: int, before_offset: int
) -> list[LoggedRecord]:
    """The first records of `keys`, or with `text` in their payload."""
    where, values = ("instr(payload, ?) > 0", [text]) if text else (_among(keys), list(keys))
    query = f'SELECT {COLUMNS} FROM records WHERE "offset" > ? AND "offset" < ? AND {where}'
    query += f' ORDER BY "offset" LIMIT {FOUND}'
    return [LoggedRecord(*row) for row in db.execute(query, (after_offset, before_offset, *values))]


def _among(keys: Collection[str]) -> str:
    return f"key IN ({','.join('?' * len(keys))})"


def empty(db: sqlite3.Connection, records: Sequence[LoggedRecord]) -> None:
    """Empties records, in one transaction."""
    with transaction(db):
        db.executemany(_UPDATE, [_emptied(record) for record in records])


def _emptied(record: LoggedRecord) -> tuple[object, ...]:
    event_id = f"{ERASED}:{record.offset}:{secrets.token_hex(4)}"
    texts = (record.kind, record.key, record.event_id, record.traceparent)
    # of the same size, so that SQLite writes over it where it stands: rows that it moves to other pages leave
    # copies of their neighbours behind
    size = len(record.payload) + sum(len(text.encode()) for text in texts) - len(ERASED) - len(event_id)
    return ERASED, "", event_id, bytes(max(0, size)), "", record.offset


def rewrite(db: sqlite3.Connection, payloads: Mapping[int, bytes]) -> None:
    """Replaces payloads by offset, in one transaction."""
    rows = [(payload, offset) for offset, payload in payloads.items()]
    with transaction(db):
        db.executemany('UPDATE records SET payload = ? WHERE "offset" = ?', rows)
