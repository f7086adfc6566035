"""Which offset each event id has first: a fold of a topic, kept in a file beside the offset that it has reached.

A broker takes a record twice when it is sent twice. The first is the one that counts, and every fold of the topic
finds the same first. The file is only a short cut: without it, or when it is damaged, the topic is folded anew.
It is therefore not synced at every commit (`synchronous=NORMAL`: a power loss takes it back to an earlier offset).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from headrace.runtime.sqlite import create_tables, make_durable, transaction

log = logging.getLogger(__name__)

# by digest: ids have any length, and an index of 16 bytes each stays small
_SCHEMA = """
CREATE TABLE IF NOT EXISTS firsts (id BLOB PRIMARY KEY, "offset" INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS firsts_offset ON firsts ("offset");
CREATE TABLE IF NOT EXISTS repeats ("offset" INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS folded (
    single INTEGER PRIMARY KEY CHECK (single = 1), topic TEXT NOT NULL, "offset" INTEGER NOT NULL,
    begins INTEGER NOT NULL);
"""
# SQLite takes 32,766 variables a statement
_IN_LIMIT = 1_000
_FORGET_LIMIT = 10_000


class EventIds:
    """The ids of one topic in a file of `folder` that no other process uses, folded up to `offset` (exclusive).

    Before `begins` there is no record. Offsets are the topic's own. One thread uses it.
    """

    def __init__(self, folder: Path, topic: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = _free_file(folder)
        self._db = self._opened(topic)
        self.offset: int
        self.begins: int
        self.offset, self.begins = self._db.execute('SELECT "offset", begins FROM folded').fetchone()

    def _opened(self, topic: str) -> sqlite3.Connection:
        try:
            db = _connect(self._path)
            if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("the pages of the file do not fit together")
        except sqlite3.DatabaseError as error:
            log.warning("event_ids_damaged", extra={"file": str(self._path), "reason": str(error)})
            _remove(self._path)
            db = _connect(self._path)
        if db.execute("SELECT topic FROM folded").fetchone() != (topic,):
            _begin_anew(db, topic)
        return db

    def begin_anew(self) -> None:
        """Forgets everything: the topic is another one than the one that was folded."""
        _begin_anew(self._db, *self._db.execute("SELECT topic FROM folded").fetchone())
        self.offset = self.begins = 0

    def fold(self, event_ids: Sequence[str | None], start: int) -> None:
        """Takes in the ids of the records from offset `start` on, None where there is none; what is folded already
        is passed over.

        ValueError: there are records between what is folded and `start`.
        """
        if start > self.offset:
            raise ValueError(f"folded up to {self.offset}, the next offset is {start}")
        new = list(enumerate(event_ids[self.offset - start :], self.offset))
        if not new:
            return
        until = new[-1][0] + 1
        rows = [(digest(event_id), offset) for offset, event_id in new if event_id is not None]
        begins = self.begins
        if begins == self.offset:
            begins = rows[0][1] if rows else until
        with transaction(self._db):
            added = self._db.executemany("INSERT OR IGNORE INTO firsts VALUES (?, ?)", rows).rowcount
            if added < len(rows):
                self._note_repeats(rows)
            gaps = [(offset,) for offset, event_id in new if event_id is None]
            self._db.executemany("INSERT INTO repeats VALUES (?)", gaps)
            self._db.execute('UPDATE folded SET "offset" = ?, begins = ?', (until, begins))
        self.offset, self.begins = until, begins

    def _note_repeats(self, rows: Sequence[tuple[bytes, int]]) -> None:
        query = 'INSERT INTO repeats SELECT ? WHERE NOT EXISTS (SELECT 1 FROM firsts WHERE id = ? AND "offset" = ?)'
        self._db.executemany(query, [(offset, key, offset) for key, offset in rows])

    def pass_over(self, offset: int) -> None:
        """Goes on at `offset`, because the topic has forgotten what is before it."""
        self._db.execute('UPDATE folded SET "offset" = ?, begins = ?', (offset, offset))
        self.offset = self.begins = offset

    def firsts(self, event_ids: Sequence[str]) -> dict[str, int]:
        """The first offset of those ids that are in the topic."""
        by_digest = {digest(event_id): event_id for event_id in event_ids}
        found: dict[str, int] = {}
        for keys in _parts(list(by_digest)):
            query = f'SELECT id, "offset" FROM firsts WHERE id IN ({",".join("?" * len(keys))})'
            found |= {by_digest[key]: offset for key, offset in self._db.execute(query, keys)}
        return found

    def repeats(self, start: int, until: int) -> set[int]:
        """Those offsets in [start, until) that have no record, or one that is not the first with its id."""
        query = 'SELECT "offset" FROM repeats WHERE "offset" >= ? AND "offset" < ?'
        return {offset for (offset,) in self._db.execute(query, (start, until))}

    def newest(self) -> int | None:
        """The newest offset of a record that is its id's first; None without any."""
        offset: int | None = self._db.execute('SELECT max("offset") FROM firsts').fetchone()[0]
        return offset

    def forget_some(self, before: int) -> bool:
        """Forgets ids of what the topic has forgotten, the oldest first; whether those were all."""
        self._db.execute('DELETE FROM repeats WHERE "offset" < ?', (before,))
        query = 'DELETE FROM firsts WHERE id IN (SELECT id FROM firsts WHERE "offset" < ? ORDER BY "offset" LIMIT ?)'
        return self._db.execute(query, (before, _FORGET_LIMIT)).rowcount < _FORGET_LIMIT

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)


def digest(event_id: str) -> bytes:
    """What stands for an id."""
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


def _free_file(folder: Path) -> tuple[Path, int]:
    """The first file that nobody uses, and the descriptor whose lock says so."""
    number = 0
    while True:
        # a file of its own: closing any descriptor of a database would drop SQLite's own locks on it
        lock = os.open(folder / f"{number}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            number += 1
        else:
            return folder / f"{number}.db", lock


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    make_durable(db)
    db.execute("PRAGMA synchronous=NORMAL")
    create_tables(db, _SCHEMA)
    return db


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _begin_anew(db: sqlite3.Connection, topic: str) -> None:
    db.execute("BEGIN")
    for table in ("firsts", "repeats", "folded"):
        db.execute(f"DELETE FROM {table}")
    db.execute("INSERT INTO folded VALUES (1, ?, 0, 0)", (topic,))
    db.execute("COMMIT")


def _parts(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), _IN_LIMIT):
        yield keys[start : start + _IN_LIMIT]
