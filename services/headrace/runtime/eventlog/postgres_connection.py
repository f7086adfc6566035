"""Connections to the PostgreSQL that keeps the event log, made anew after they were lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from headrace.runtime.errors import UnavailableError
from headrace.runtime.eventlog.postgres_schema import create_tables

T = TypeVar("T")
Database = psycopg.AsyncConnection[tuple[Any, ...]]
# what a server or a connection that is not there raises
LOST = (psycopg.OperationalError, psycopg.InterfaceError)
RETRY_S = 0.2

_CONNECT = {
    "connect_timeout": 5,
    # a host that is gone says nothing
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "headrace-event-log",
}
# a writer that stands still must not hold the head from the others; the offset's index is the only
# good plan for reading, also where the planner knows nothing of the tables yet
_SESSION = """
SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = '30s'; SET jit = off;
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
"""


class Connection:
    """One connection, used by one caller at a time, made anew after it was lost."""

    def __init__(self, url: str, *, patience_s: float = 0.0) -> None:
        self._url = url
        self._patience_s = patience_s
        self._turn = asyncio.Lock()
        self._database: Database | None = None

    async def run(self, work: Callable[[Database], Awaitable[T]]) -> T:
        """What `work` answers. It is tried again for `patience_s`; UnavailableError when that does not help."""
        until = asyncio.get_running_loop().time() + self._patience_s
        async with self._turn:
            while True:
                try:
                    return await self._run(work)
                except LOST as error:
                    if asyncio.get_running_loop().time() >= until:
                        raise UnavailableError(f"event log {_shown(self._url)}: {error}", retry_after_s=0.5) from error
                await asyncio.sleep(RETRY_S)

    async def _run(self, work: Callable[[Database], Awaitable[T]]) -> T:
        if self._database is None:
            self._database = await connect(self._url)
        try:
            return await work(self._database)
        except BaseException:
            # in whatever state it is, the server rolls back what was not committed
            await self._drop()
            raise

    async def _drop(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def close(self) -> None:
        async with self._turn:
            await self._drop()


async def connect(url: str) -> Database:
    """A connection to a database that has the tables."""
    # what the URL says goes first
    options = {name: value for name, value in _CONNECT.items() if name not in conninfo_to_dict(url)}
    database = await psycopg.AsyncConnection.connect(url, autocommit=True, **options)  # type: ignore[arg-type]
    try:
        await database.execute(_SESSION.encode())
        await create_tables(database)
    except BaseException:
        await database.close()
        raise
    return database


def _shown(url: str) -> str:
    """Which database, without the password."""
    parts = conninfo_to_dict(url)
    return f"{parts.get('dbname', '')} at {parts.get('host', 'the local socket')}"
