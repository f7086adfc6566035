"""The event log in PostgreSQL: one transaction a group of callers, COPY, NOTIFY to wake followers.

Three tables:

- `event_log_head`, one row: the newest offset and its append time. A writer locks it before it gives
  offsets and holds the lock until its commit is visible, so offsets become visible in order whatever
  process writes: a sequence would let a reader pass by an offset that commits later.
- `event_log_records`, partitioned by the hash of the key (`partition_of`), indexed by offset.
- `event_log_ids`, partitioned by the hash of the event id. An id is unique over all keys (a client may
  repeat an event with a person's id where it had a device's), which a table partitioned by key cannot
  enforce; this one can, since equal ids meet in one partition.

`trim` deletes, in bounded transactions. Dropping partitions would need partitions by time, and then
neither an id nor an offset could be unique over them; append times never go back here, so what is old
is the beginning of the index, and the rest of the log is not touched.

`synchronous_commit` is never off: what was acknowledged survives a crash of the server. When the
connection is lost the outcome of a commit is unknown: callers get UnavailableError and append again,
which changes nothing where it was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from headrace.runtime.clock import now_us
from headrace.runtime.eventlog import postgres_erasure
from headrace.runtime.eventlog.group_commit import GroupCommit, placed
from headrace.runtime.eventlog.log import Appended, LoggedRecord, Record, check_follows, check_not_trimmed, partition_of
from headrace.runtime.eventlog.postgres_bell import CHANNEL, Bell
from headrace.runtime.eventlog.postgres_connection import Connection, Database

_COLUMNS = '"offset", partition, append_time_us, kind, key, event_id, time_us, payload, traceparent'
_TYPES = ("int8", "int2", "int8", "text", "bytea", "bytea", "int8", "bytea", "text")
_APPEND_TIME, _EVENT_ID = 2, 5
_COPY = f"COPY event_log_records ({_COLUMNS}) FROM STDIN (FORMAT BINARY)".encode()
_LOCK_HEAD = 'SELECT "offset", append_time_us FROM event_log_head FOR UPDATE'
_KNOWN = 'SELECT event_id, "offset" FROM event_log_ids WHERE event_id = ANY(%b)'
_ADD_IDS = "INSERT INTO event_log_ids SELECT * FROM unnest(%b::bytea[], %b::bigint[])"
_MOVE_HEAD = 'UPDATE event_log_head SET "offset" = %s, append_time_us = %s'
_OLD = """
SELECT max("offset") FROM (
    SELECT "offset", append_time_us FROM event_log_records WHERE "offset" > %s ORDER BY "offset" LIMIT %s
) AS oldest
WHERE append_time_us < %s AND "offset" < (SELECT "offset" FROM event_log_head)
"""
_FORGET = """
WITH gone AS (DELETE FROM event_log_records WHERE "offset" > %s AND "offset" <= %s RETURNING event_id)
DELETE FROM event_log_ids USING gone WHERE event_log_ids.event_id = gone.event_id
"""
_OLDEST = b'SELECT "offset" FROM event_log_records ORDER BY "offset" LIMIT 1'
_TRIM_LIMIT = 10_000

# a notice can be lost with its connection; a look at the end costs one small query
_LOOK_AGAIN_S = 1.0
# how long a read waits for a server that is being started again
_PATIENCE_S = 10.0


class PostgresEventLog:
    """An `EventLog` in the database at `url` (`postgresql://…`); its tables are made when they are missing.

    `max_waiting` bounds the records that wait for a commit; beyond it `append` is refused.
    """

    def __init__(self, url: str, *, max_waiting: int = 50_000) -> None:
        self._writer = Connection(url)
        self._reader = Connection(url, patience_s=_PATIENCE_S)
        self._trimmer = Connection(url)
        self._commits = GroupCommit(self._commit, max_waiting)
        self._bell = Bell(url)

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
        where, values = ['"offset" > %s'], [after_offset]
        for column, wanted in (("kind", kinds), ("partition", partitions)):
            if wanted:
                where.append(f"{column} = ANY(%s)")
                values.append(list(wanted))  # type: ignore[arg-type]
        query = f'SELECT {_COLUMNS} FROM event_log_records WHERE {" AND ".join(where)} ORDER BY "offset" LIMIT %s'
        rows = await self._reader.run(partial(_rows, query=query.encode(), values=(*values, limit)))
        found = [_logged(row) for row in rows]
        # what follows at once is the whole truth; otherwise something may have been there
        if kinds or partitions or (found and found[0].offset > after_offset + 1):
            check_not_trimmed(after_offset, await self._oldest())
        return found

    async def _oldest(self) -> int:
        rows = await self._reader.run(partial(_rows, query=_OLDEST, values=()))
        return int(rows[0][0]) if rows else 0

    async def wait(self, after_offset: int, timeout_s: float) -> bool:
        until = asyncio.get_running_loop().time() + timeout_s
        while True:
            # taken first: what is committed while the end is read changes it
            rung = self._bell.rung()
            if (await self.end())[0] > after_offset:
                return True
            left_s = until - asyncio.get_running_loop().time()
            if left_s <= 0:
                return False
            await self._bell.wait(rung, min(left_s, _LOOK_AGAIN_S))

    async def offsets_of(self, event_ids: Collection[str]) -> dict[str, int]:
        ids = [event_id.encode() for event_id in event_ids]
        rows = await self._reader.run(partial(_rows, query=_KNOWN.encode(), values=(ids,)))
        return {event_id.decode(): offset for event_id, offset in rows}

    async def end(self) -> tuple[int, int]:
        query = b'SELECT "offset", append_time_us FROM event_log_head'
        ((offset, append_time_us),) = await self._reader.run(partial(_rows, query=query, values=()))
        return offset, append_time_us

    async def trim(self, before_us: int) -> int:
        trimmed, after = 0, 0
        while True:
            count, upto = await self._trimmer.run(partial(_forget_oldest, after=after, before_us=before_us))
            if upto is None:
                return trimmed
            trimmed, after = trimmed + count, upto

    async def restore(self, records: Sequence[LoggedRecord]) -> None:
        if records:
            await self._writer.run(partial(_restore, records=records))

    async def find(
        self, *, keys: Collection[str] = (), text: bytes = b"", before_offset: int, after_offset: int = 0
    ) -> list[LoggedRecord]:
        query, values = postgres_erasure.found(_COLUMNS, keys, text, after_offset, before_offset)
        return [_logged(row) for row in await self._trimmer.run(partial(_rows, query=query, values=values))]

    async def rewrite(self, payloads: Mapping[int, bytes]) -> None:
        await self._trimmer.run(partial(postgres_erasure.rewrite, payloads=payloads))

    async def erase(self, keys: Collection[str], before_offset: int) -> int:
        erased, after = 0, 0
        while True:
            count, upto = await self._trimmer.run(
                partial(postgres_erasure.empty, keys=keys, after_offset=after, before_offset=before_offset)
            )
            if upto is None:
                break
            erased, after = erased + count, upto
        await self._trimmer.run(postgres_erasure.vacuum)
        return erased

    async def close(self) -> None:
        await self._commits.finish()
        await self._bell.close()
        for connection in (self._writer, self._reader, self._trimmer):
            await connection.close()


async def _rows(database: Database, *, query: bytes, values: Sequence[object]) -> list[tuple[Any, ...]]:
    return await (await database.execute(query, values, binary=True)).fetchall()


async def _insert(database: Database, *, records: Sequence[Record]) -> list[Appended]:
    # in few round trips, since others wait for the head meanwhile
    async with database.pipeline():
        await database.execute("BEGIN")
        head = await database.execute(_LOCK_HEAD, binary=True)
        known = await database.execute(_KNOWN, ([record.event_id.encode() for record in records],), binary=True)
    ((end, newest_us),) = await head.fetchall()
    offsets = {event_id.decode(): offset for event_id, offset in await known.fetchall()}
    appended, new = placed(records, offsets, end)
    if new:
        # never back, also where another host's clock is behind
        append_time_us = max(now_us(), newest_us)
        await _write(database, [_row(offset, record, append_time_us) for offset, record in new])
    else:
        await database.execute("ROLLBACK")
    return appended


async def _restore(database: Database, *, records: Sequence[LoggedRecord]) -> None:
    await database.execute("BEGIN")
    ((end, _),) = await _rows(database, query=_LOCK_HEAD.encode(), values=())
    check_follows(records, end)
    await _write(database, [_row(record.offset, record, record.append_time_us) for record in records])


async def _write(database: Database, rows: Sequence[tuple[Any, ...]]) -> None:
    """Adds rows (as `_row` makes them) with their ids and ends the transaction."""
    async with database.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_TYPES)
        for row in rows:
            await copy.write_row(row)
    newest = rows[-1]
    async with database.pipeline():
        await database.execute(_ADD_IDS, ([row[_EVENT_ID] for row in rows], [row[0] for row in rows]))
        await database.execute(_MOVE_HEAD, (newest[0], newest[_APPEND_TIME]))
        await database.execute(f"NOTIFY {CHANNEL}".encode())
        await database.execute("COMMIT")


def _row(offset: int, record: Record | LoggedRecord, append_time_us: int) -> tuple[Any, ...]:
    return (
        offset,
        # an erased record stays where its key was
        record.partition if isinstance(record, LoggedRecord) else partition_of(record.key),
        append_time_us,
        record.kind,
        record.key.encode(),
        record.event_id.encode(),
        record.time_us,
        record.payload,
        record.traceparent,
    )


def _logged(row: tuple[Any, ...]) -> LoggedRecord:
    offset, partition, append_time_us, kind, key, event_id, time_us, payload, traceparent = row
    return LoggedRecord(
        offset, partition, append_time_us, kind, key.decode(), event_id.decode(), time_us, payload, traceparent
    )


async def _forget_oldest(database: Database, *, after: int, before_us: int) -> tuple[int, int | None]:
    """How many of the oldest were forgotten, and up to which offset; None when none is old enough."""
    ((upto,),) = await _rows(database, query=_OLD.encode(), values=(after, _TRIM_LIMIT, before_us))
    if upto is None:
        return 0, None
    return (await database.execute(_FORGET.encode(), (after, upto))).rowcount, upto
