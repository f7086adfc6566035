"""The event log in one SQLite file: WAL, synchronous=FULL, group commit.

One writer at a time holds SQLite's lock, so offsets become visible in order and readers in other
processes can follow by offset. `synchronous=FULL` syncs the WAL at every commit: what was
acknowledged survives SIGKILL and power loss.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from headrace.runtime.atomic import make_directory
from headrace.runtime.clock import now_us
from headrace.runtime.errors import UnavailableError
from headrace.runtime.eventlog.group_commit import GroupCommit, placed
from headrace.runtime.eventlog.log import Appended, LoggedRecord, Record, check_follows, check_not_trimmed, partition_of
from headrace.runtime.eventlog.sqlite_erasure import COLUMNS, FOUND, empty, find, rewrite
from headrace.runtime.sqlite import create_tables, make_durable, transaction, truncate_wal

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    "offset" INTEGER PRIMARY KEY,
    partition INTEGER NOT NULL,
    append_time_us INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    event_id TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    payload BLOB NOT NULL,
    traceparent TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS records_event_id ON records (event_id);
"""
_POLL_S = 0.005
# SQLite takes 32,766 variables a statement
_IN_LIMIT = 1_000
_TRIM_LIMIT = 10_000


class SqliteEventLog:
    """An `EventLog` in the file `path`, made when it is missing.

    `max_waiting` bounds the records that wait for a commit; beyond it `append` is refused.
    """

    def __init__(self, path: Path, *, max_waiting: int = 50_000) -> None:
        make_directory(path.parent)
        self._path = path
        self._writer = _Connection(path, "eventlog-writer")
        self._reader = _Connection(path, "eventlog-reader")
        # reading the whole log for one person must not hold up who follows it
        self._finder = _Connection(path, "eventlog-finder")
        self._watcher: sqlite3.Connection | None = None
        self._commits = GroupCommit(self._commit, max_waiting)

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        return await self._commits.append(records)

    async def _commit(self, records: Sequence[Record]) -> list[Appended]:
        return await self._writer.run(partial(_insert, records=records))

    async def read(
        self,
        after_offset: int,
        *,
        limit: int = 1000,
        kinds: Collection[str] = (),
        partitions: Collection[int] = (),
    ) -> list[LoggedRecord]:
        where, values = ['"offset" > ?'], [after_offset]
        for column, wanted in (("kind", kinds), ("partition", partitions)):
            if wanted:
                where.append(f"{column} IN (SELECT value FROM json_each(?))")
                values.append(json.dumps(list(wanted)))  # type: ignore[arg-type]
        query = f'SELECT {COLUMNS} FROM records WHERE {" AND ".join(where)} ORDER BY "offset" LIMIT ?'
        rows = await self._reader.run(lambda db: db.execute(query, (*values, limit)).fetchall())
        found = [LoggedRecord(*row) for row in rows]
        # what follows at once is the whole truth; otherwise something may have been there
        if kinds or partitions or (found and found[0].offset > after_offset + 1):
            check_not_trimmed(after_offset, await self._reader.run(_oldest))
        return found

    async def wait(self, after_offset: int, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            # taken first: what is committed while the end is read changes it
            version = self._version()
            if (await self.end())[0] > after_offset:
                return True
            while self._version() == version:
                if loop.time() >= until:
                    return False
                await asyncio.sleep(min(_POLL_S, until - loop.time()))

    def _version(self) -> int:
        # some microseconds, and never blocked in WAL mode; asking the reader's thread for the end
        # at each poll cost an idle follower 7 % of a core
        if self._watcher is None:
            self._watcher = _connect(self._path)
        return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    async def offsets_of(self, event_ids: Collection[str]) -> dict[str, int]:
        return await self._reader.run(lambda db: _offsets_of(db, list(event_ids)))

    async def end(self) -> tuple[int, int]:
        return await self._reader.run(_end)

    async def trim(self, before_us: int) -> int:
        trimmed = 0
        while count := await self._writer.run(lambda db: _trim_some(db, before_us)):
            trimmed += count
        return trimmed

    async def restore(self, records: Sequence[LoggedRecord]) -> None:
        await self._writer.run(partial(_restore, records=records))

    async def find(
        self, *, keys: Collection[str] = (), text: bytes = b"", before_offset: int, after_offset: int = 0
    ) -> list[LoggedRecord]:
        return await self._finder.run(lambda db: find(db, keys, text, after_offset, before_offset))

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        await self._writer.run(partial(rewrite, payloads=payloads))

    async def erase(self, keys: Collection[str], before_offset: int) -> int:
        erased, after = 0, 0
        while records := await self.find(keys=keys, before_offset=before_offset, after_offset=after):
            # some at a time: those who append wait meanwhile
            await self._writer.run(partial(empty, records=records))
            erased, after = erased + len(records), records[-1].offset
            if len(records) < FOUND:
                break
        await self._finder.run(truncate_wal)
        return erased

    async def close(self) -> None:
        await self._commits.finish()
        await self._writer.close()
        await self._reader.close()
        await self._finder.close()
        if self._watcher is not None:
            self._watcher.close()


class _Connection:
    """One SQLite connection with the one thread that may use it."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._local = threading.local()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._work(work))

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connection())
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"event log {self._path}: {error}", retry_after_s=0.5) from error

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            self._local.db = _connect(self._path)
        connection: sqlite3.Connection = self._local.db
        return connection

    async def close(self) -> None:
        await self.run(lambda db: db.close())
        self._pool.shutdown()


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    make_durable(db)
    create_tables(db, _SCHEMA)
    return db


def _insert(db: sqlite3.Connection, *, records: Sequence[Record]) -> list[Appended]:
    with transaction(db):
        appended, rows = _placed(db, records)
        _write(db, rows)
    return appended


def _restore(db: sqlite3.Connection, *, records: Sequence[LoggedRecord]) -> None:
    with transaction(db):
        check_follows(records, _end(db)[0])
        _write(db, records)


def _write(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    db.executemany(f"INSERT INTO records ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", rows)


def _placed(db: sqlite3.Connection, records: Sequence[Record]) -> tuple[list[Appended], list[tuple[object, ...]]]:
    known = _offsets_of(db, [record.event_id for record in records])
    appended, new = placed(records, known, _end(db)[0])
    append_time_us = now_us()
    rows: list[tuple[object, ...]] = [
        (
            offset,
            partition_of(record.key),
            append_time_us,
            record.kind,
            record.key,
            record.event_id,
            record.time_us,
            record.payload,
            record.traceparent,
        )
        for offset, record in new
    ]
    return appended, rows


def _offsets_of(db: sqlite3.Connection, event_ids: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(event_ids), _IN_LIMIT):
        part = event_ids[start : start + _IN_LIMIT]
        # not json_each: it cuts an id at a NUL character
        query = f'SELECT event_id, "offset" FROM records WHERE event_id IN ({",".join("?" * len(part))})'
        found.update(db.execute(query, part).fetchall())
    return found


def _end(db: sqlite3.Connection) -> tuple[int, int]:
    row = db.execute('SELECT "offset", append_time_us FROM records ORDER BY "offset" DESC LIMIT 1').fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _oldest(db: sqlite3.Connection) -> int:
    row = db.execute('SELECT "offset" FROM records ORDER BY "offset" LIMIT 1').fetchone()
    return int(row[0]) if row else 0


def _trim_some(db: sqlite3.Connection, before_us: int) -> int:
    # what is left has no gaps, also where the clock went back; the newest stays, so that offsets go on from it
    oldest = db.execute('SELECT "offset", append_time_us FROM records ORDER BY "offset" LIMIT ?', (_TRIM_LIMIT,))
    old = [offset for offset, _ in takewhile(lambda row: row[1] < before_us, oldest)]
    query = 'DELETE FROM records WHERE "offset" <= ? AND "offset" < (SELECT max("offset") FROM records)'
    return db.execute(query, (old[-1],)).rowcount if old else 0
