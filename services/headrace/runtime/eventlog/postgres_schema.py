"""The tables of the event log in PostgreSQL, made when they are missing."""

from __future__ import annotations

from typing import Any

import psycopg

from headrace.runtime.eventlog.log import PARTITIONS

_TABLES = 8
# ids and keys are bytes: text would refuse the character NUL, and would compare by the locale's rules
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS event_log_head (
    single boolean PRIMARY KEY CHECK (single),
    "offset" bigint NOT NULL,
    append_time_us bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO event_log_head VALUES (true, 0, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS event_log_records (
    "offset" bigint NOT NULL,
    partition smallint NOT NULL,
    append_time_us bigint NOT NULL,
    kind text NOT NULL,
    key bytea NOT NULL,
    event_id bytea NOT NULL,
    time_us bigint NOT NULL,
    payload bytea NOT NULL,
    traceparent text NOT NULL,
    PRIMARY KEY ("offset", partition)
) PARTITION BY RANGE (partition);
CREATE TABLE IF NOT EXISTS event_log_ids (
    event_id bytea PRIMARY KEY,
    "offset" bigint NOT NULL
) PARTITION BY HASH (event_id);
DO $$ BEGIN FOR n IN 0..{_TABLES - 1} LOOP
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS event_log_records_%s PARTITION OF event_log_records FOR VALUES FROM (%s) TO (%s)',
        n, n * {PARTITIONS // _TABLES}, (n + 1) * {PARTITIONS // _TABLES});
    EXECUTE format(
        'CREATE TABLE IF NOT EXISTS event_log_ids_%s PARTITION OF event_log_ids'
        ' FOR VALUES WITH (MODULUS {_TABLES}, REMAINDER %s)', n, n);
END LOOP; END $$;
"""
# of several processes that find no tables one makes them, and the others find them made
_SCHEMA_LOCK = 0x6865616472616365


async def create_tables(database: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
    if await _has_tables(database):
        return
    async with database.transaction():
        await database.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
        # not asked again: inside a transaction the answer may come from before the lock
        await database.execute(_SCHEMA.encode())


async def _has_tables(database: psycopg.AsyncConnection[tuple[Any, ...]]) -> bool:
    found = await database.execute("SELECT to_regclass('event_log_ids') IS NOT NULL")
    ((is_there,),) = await found.fetchall()
    return bool(is_there)
