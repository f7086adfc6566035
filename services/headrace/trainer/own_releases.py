"""The names of a lineage's own releases, for good: the registry forgets releases, what was shown by them stays."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from headrace.runtime.atomic import make_directory
from headrace.runtime.sqlite import create_tables, make_durable, transaction

_SCHEMA = "CREATE TABLE IF NOT EXISTS own_releases (name TEXT PRIMARY KEY) WITHOUT ROWID;"


class OwnReleases:
    """Names in the SQLite file `path`, durable when `add` returns. Safe to use from several threads and processes.

    A name is added before anybody can hear of the release, so whether a logged list is this lineage's own is answered
    the same whenever its record is learned.
    """

    def __init__(self, path: Path) -> None:
        make_directory(path.parent)
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        make_durable(self._db)
        create_tables(self._db, _SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def add(self, name: str) -> None:
        with self._lock, transaction(self._db):
            self._db.execute("INSERT OR IGNORE INTO own_releases VALUES (?)", (name,))

    def __contains__(self, name: object) -> bool:
        if name in self._known:
            return True
        if not isinstance(name, str):
            return False
        with self._lock:
            found = self._db.execute("SELECT 1 FROM own_releases WHERE name = ?", (name,)).fetchone()
        if found:
            self._known.add(name)
        return found is not None
