"""SQLite connections that keep what they acknowledge and wait for each other."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.runtime.atomic import sync_directory

BUSY_TIMEOUT_S = 30.0
_RETRY_S = 0.01


def make_durable(connection: sqlite3.Connection) -> None:
    """Write-ahead log, a sync at every commit, and waiting instead of failing while another process writes.

    SQLite's own busy timeout does not cover the switch to the write-ahead log: of several processes that
    open a new file at once all but one are told "database is locked" at once. They try again here.
    """
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(_RETRY_S)
    connection.execute("PRAGMA synchronous=FULL")
    # what is deleted is written over: people ask to be forgotten
    connection.execute("PRAGMA secure_delete=ON")
    _sync_recovered(connection)


def _sync_recovered(connection: sqlite3.Connection) -> None:
    """Puts on the disk what recovery found in the write-ahead log.

    A process killed inside its sync leaves commits that only the page cache has. Recovery makes them visible, and
    SQLite syncs nothing when a transaction has nothing to write: a retry would be told "it is there already" of
    what the next power loss takes. (SQLite locks no byte of this file, so closing it here releases nothing.)
    """
    ((_, _, path), *_) = connection.execute("PRAGMA database_list").fetchall()
    if not path:
        # in memory
        return
    with contextlib.suppress(FileNotFoundError), open(f"{path}-wal", "rb+") as file:
        os.fsync(file.fileno())
    # its name too: SQLite syncs that only when it made the file itself
    sync_directory(Path(path).parent)


def truncate_wal(connection: sqlite3.Connection) -> None:
    """Brings everything into the file and empties the write-ahead log, which holds pages as they were.

    It waits for who reads. OperationalError: they did not end within the busy timeout.
    """
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not is_busy:
            return
        if time.monotonic() >= until:
            raise sqlite3.OperationalError("the write-ahead log is being read: it could not be emptied")
        time.sleep(_RETRY_S)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commits what is done in it, alone from the beginning; nothing of it when that fails."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def create_tables(connection: sqlite3.Connection, schema: str) -> None:
    """Runs statements of the form CREATE … IF NOT EXISTS as one transaction that waits for its turn."""
    connection.executescript(f"BEGIN IMMEDIATE;{schema};COMMIT;")
