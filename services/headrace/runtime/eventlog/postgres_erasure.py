"""Finds and empties people's records in the log on PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from headrace.runtime.eventlog.log import ERASED, partition_of
from headrace.runtime.eventlog.postgres_connection import Database

FOUND = 1_000
_BY_KEY = "partition = ANY(%s) AND key = ANY(%s)"
_BY_TEXT = "position(%s::bytea IN payload) > 0"
_EMPTY = f"""
WITH named AS (
    SELECT "offset", event_id FROM event_log_records
    WHERE "offset" > %s AND "offset" < %s AND {_BY_KEY} ORDER BY "offset" LIMIT {FOUND}
), emptied AS (
    UPDATE event_log_records AS record
    SET kind = '{ERASED}', key = '', payload = '', traceparent = '',
        event_id = convert_to('{ERASED}:' || record."offset", 'UTF8')
    FROM named WHERE record."offset" = named."offset" AND record.partition = ANY(%s)
), forgotten AS (
    DELETE FROM event_log_ids USING named WHERE event_log_ids.event_id = named.event_id
)
SELECT count(*), max("offset") FROM named
"""
_REWRITE = """
UPDATE event_log_records AS record SET payload = given.payload
FROM unnest(%s::bigint[], %s::bytea[]) AS given("offset", payload) WHERE record."offset" = given."offset"
"""


def found(
    columns: str, keys: Collection[str], text: bytes, after_offset: int, before_offset: int
) -> tuple[bytes, tuple[object, ...]]:
    """The query for the first records of `keys`, or with `text` in their payload, and its values."""
    where, values = (_BY_TEXT, (text,)) if text else (_BY_KEY, _named(keys))
    query = (
        f'SELECT {columns} FROM event_log_records WHERE "offset" > %s AND "offset" < %s AND {where}'
        f' ORDER BY "offset" LIMIT {FOUND}'
    )
    return query.encode(), (after_offset, before_offset, *values)


def _named(keys: Collection[str]) -> tuple[list[int], list[bytes]]:
    return sorted({partition_of(key) for key in keys}), [key.encode() for key in keys]


async def empty(
    database: Database, *, keys: Collection[str], after_offset: int, before_offset: int
) -> tuple[int, int | None]:
    """Empties the first records of `keys`, in one transaction: how many, and up to which offset."""
    partitions, names = _named(keys)
    values: tuple[Any, ...] = (after_offset, before_offset, partitions, names, partitions)
    ((count, upto),) = await (await database.execute(_EMPTY.encode(), values)).fetchall()
    return int(count), upto


async def rewrite(database: Database, *, payloads: Mapping[int, bytes]) -> None:
    await database.execute(_REWRITE.encode(), (list(payloads), list(payloads.values())))


async def vacuum(database: Database) -> None:
    """Frees the rows as they were before."""
    await database.execute(b"VACUUM event_log_records, event_log_ids")
