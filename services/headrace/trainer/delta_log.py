"""The durable order of what was learned: deltas by sequence number, and the slices that made them.

A slice's deltas and its journal entry are committed in one transaction, so that after a crash the
journal says exactly which slices have been learned and which sequence numbers exist.

Rows are kept by batch. Acknowledged batches are folded into a base of the newest row an item when they
grow many (`compact`); the sequence numbers up to the base (the horizon) cannot be sent again one by one.
An index that lacks some of them is given a *new space* (`begin_space`), whose sequences begin at 1 with
every live row: sequences of one space never change their meaning, and no filler is needed.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.runtime.atomic import make_directory
from headrace.runtime.clock import now_us
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.sqlite import create_tables, make_durable, transaction
from headrace.trainer.deltas import Deltas, Sent

BATCH_ROWS = 4_096

_SCHEMA = """
CREATE TABLE IF NOT EXISTS space (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    lineage TEXT NOT NULL,
    generation INTEGER NOT NULL,
    dimension INTEGER NOT NULL,
    horizon INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    log_offset INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS spaces (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    form TEXT NOT NULL,
    reason TEXT NOT NULL,
    begin_time_us INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    first_sequence INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,
    ordinals BLOB NOT NULL,
    vectors BLOB NOT NULL,
    tombstones BLOB NOT NULL,
    log_offset INTEGER NOT NULL,
    traceparent TEXT NOT NULL,
    append_time_us INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS base (ordinal INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS gone (ordinal INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS journal (
    entry INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    after_offset INTEGER NOT NULL,
    until_offset INTEGER NOT NULL,
    digest TEXT NOT NULL,
    last_sequence INTEGER NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One journalled act of learning over the records with `after` < offset <= `until`."""

    number: int
    # products, events, drift, reconcile or rotate
    kind: str
    after: int
    until: int
    digest: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows numbered one after the other from `first_sequence`, as they travel."""

    space: str
    first_sequence: int
    rows: int
    ordinals: bytes
    vectors: bytes
    tombstones: bytes
    log_offset: int
    traceparent: str
    # of the oldest record that it reflects; 0 when there is none
    append_time_us: int

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + self.rows - 1


class DeltaLog:
    """Deltas and journal in the SQLite file `path`; durable (fsync) when `commit` returns.

    `form` names what vectors are like beside their width: those of one space are of one form.
    Safe to use from several threads.
    """

    def __init__(self, path: Path, lineage: str, dimension: int, form: str = "") -> None:
        make_directory(path.parent)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        make_durable(self._db)
        create_tables(self._db, _SCHEMA)
        self._dimension = dimension
        self._form = form
        with self._transaction():
            self._found(lineage)
        stored = self._one("SELECT dimension FROM space")
        if stored != dimension:
            raise FailedPreconditionError(f"{path} holds vectors of width {stored}, the settings say {dimension}")

    def _found(self, lineage: str) -> None:
        # another log never uses the spaces of this one, even when an index outlives the trainer's disk
        born = f"{lineage}-{time.time_ns() // 1_000_000:x}"
        values = (born, self._dimension)
        made = self._db.execute("INSERT OR IGNORE INTO space VALUES (1, ?, 1, ?, 0, 0, 0)", values).rowcount
        # a log of before forms were kept does not know that of its space
        self._note_space(self._form if made else "", "")

    def _note_space(self, form: str, reason: str) -> None:
        query = "INSERT OR IGNORE INTO spaces (name, form, reason, begin_time_us) VALUES (?, ?, ?, ?)"
        self._db.execute(query, (self.space, form, reason, now_us()))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @property
    def space(self) -> str:
        """The embedding space that is being filled."""
        with self._lock:
            lineage, generation = self._db.execute("SELECT lineage, generation FROM space").fetchone()
        return f"{lineage}-{generation}"

    @property
    def is_of_other_form(self) -> bool:
        """Whether the space was begun with vectors of another form than these are."""
        with self._lock:
            found = self._db.execute("SELECT form FROM spaces WHERE name = ?", (self.space,)).fetchone()
        return bool(found[0] != self._form)

    def spaces(self) -> list[str]:
        """All spaces that were begun and not forgotten, oldest first."""
        with self._lock:
            return [name for (name,) in self._db.execute("SELECT name FROM spaces ORDER BY number").fetchall()]

    def forget_space(self, space: str) -> None:
        """Drops the memory of a space that is nowhere any more."""
        with self._transaction():
            self._db.execute("DELETE FROM spaces WHERE name = ?", (space,))

    @property
    def last_sequence(self) -> int:
        return self._one("SELECT last_sequence FROM space")

    @property
    def horizon(self) -> int:
        """Sequences up to here are folded and cannot be sent one by one."""
        return self._one("SELECT horizon FROM space")

    def bounds(self) -> tuple[str, int, int]:
        """The space, its horizon and its last sequence, as of one moment."""
        with self._lock:
            return self.space, self.horizon, self.last_sequence

    def _one(self, query: str) -> int:
        with self._lock:
            return int(self._db.execute(query).fetchone()[0])

    def commit(
        self, entry: Entry, deltas: Deltas, *, log_offset: int, traceparent: str = "", append_time_us: int = 0
    ) -> int:
        """Appends deltas and their journal entry at once; the last sequence. Nothing of it on an error."""
        with self._transaction():
            self._append(deltas, log_offset, traceparent, append_time_us)
            self._journal(entry)
            return self.last_sequence

    def _journal(self, entry: Entry) -> None:
        values = (entry.number, entry.kind, entry.after, entry.until, entry.digest, self.last_sequence)
        self._db.execute("INSERT INTO journal VALUES (?,?,?,?,?,?)", values)

    def _append(self, deltas: Deltas, log_offset: int, traceparent: str, append_time_us: int) -> None:
        sequence = self.last_sequence
        self._note_gone(deltas)
        for start in range(0, len(deltas), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            ordinals = deltas.ordinals[part]
            self._db.execute(
                "INSERT INTO batches VALUES (?,?,?,?,?,?,?,?)",
                (
                    sequence + 1,
                    len(ordinals),
                    ordinals.astype("<u4").tobytes(),
                    deltas.vectors[part].astype("<f4").tobytes(),
                    deltas.tombstones[part].tobytes(),
                    log_offset,
                    traceparent,
                    append_time_us,
                ),
            )
            sequence += len(ordinals)
        self._db.execute("UPDATE space SET last_sequence = ?, log_offset = ?", (sequence, log_offset))

    def _note_gone(self, deltas: Deltas) -> None:
        is_gone = deltas.tombstones != 0
        if self._one("SELECT EXISTS (SELECT 1 FROM gone)"):
            back = [(ordinal,) for ordinal in deltas.ordinals[~is_gone].tolist()]
            self._db.executemany("DELETE FROM gone WHERE ordinal = ?", back)
        gone = [(ordinal,) for ordinal in deltas.ordinals[is_gone].tolist()]
        self._db.executemany("INSERT OR IGNORE INTO gone VALUES (?)", gone)

    def gone(self) -> NDArray[np.uint32]:
        """Items that were deleted and did not come back, in whichever space that was; ascending."""
        with self._lock:
            found = self._db.execute("SELECT ordinal FROM gone ORDER BY ordinal").fetchall()
        return np.array([ordinal for (ordinal,) in found], np.uint32)

    def batch_after(self, sequence: int) -> Batch | None:
        """The rows that follow `sequence`, at most one batch of them; None when there are none yet.

        FailedPreconditionError: they lie before the horizon.
        """
        query = "SELECT * FROM batches WHERE first_sequence <= ? ORDER BY first_sequence DESC LIMIT 1"
        with self._lock:
            space = self.space
            if sequence < self.horizon:
                raise FailedPreconditionError(f"sequence {sequence} lies before the horizon {self.horizon}")
            row = self._db.execute(query, (sequence + 1,)).fetchone()
        if row is None or row[0] + row[1] <= sequence + 1:
            return None
        return _tail(Batch(space, *row), sequence + 1, self._dimension)

    def journal(self, after: int) -> list[Entry]:
        """Entries with a number above `after`, in order."""
        query = "SELECT entry, kind, after_offset, until_offset, digest FROM journal WHERE entry > ? ORDER BY entry"
        with self._lock:
            return [Entry(*row) for row in self._db.execute(query, (after,)).fetchall()]

    def forget_journal(self, until: int) -> None:
        """Drops entries up to a number that every kept checkpoint contains."""
        with self._transaction():
            self._db.execute("DELETE FROM journal WHERE entry <= ?", (until,))

    def live(self) -> Deltas:
        """The newest row of every item that is there, by ordinal."""
        with self._lock:
            return self._folded(self._batches_until(self.last_sequence)).all()

    def compact(self, space: str, acknowledged: int, keep_rows: int) -> bool:
        """Folds acknowledged batches into the base when they hold more than `keep_rows` rows; whether it did.

        Never when `space`, in which they were acknowledged, is not the present one.
        """
        if acknowledged - self.horizon <= keep_rows:
            return False
        with self._transaction():
            if space != self.space:
                return False
            batches = list(self._batches_until(acknowledged))
            if not batches:
                return False
            base = self._folded(batches).all()
            rows = zip(base.ordinals.tolist(), (vector.tobytes() for vector in base.vectors), strict=True)
            self._db.execute("DELETE FROM base")
            self._db.executemany("INSERT INTO base VALUES (?, ?)", rows)
            horizon = batches[-1].last_sequence
            self._db.execute("DELETE FROM batches WHERE first_sequence <= ?", (horizon,))
            self._db.execute("UPDATE space SET horizon = ?", (horizon,))
        return True

    def begin_space(self, taken: Collection[str], reason: str = "", entry: Entry | None = None) -> str:
        """A new space with every live row as sequences 1, 2, …; its name is none of `taken`.

        Its `entry` in the journal is committed with it; it has none when no act of learning went with it.
        """
        with self._transaction():
            live, log_offset = self.live(), self._one("SELECT log_offset FROM space")
            self._db.execute("DELETE FROM base")
            self._db.execute("DELETE FROM batches")
            self._db.execute("UPDATE space SET generation = generation + 1, horizon = 0, last_sequence = 0")
            while self.space in taken:
                self._db.execute("UPDATE space SET generation = generation + 1")
            self._note_space(self._form, reason)
            self._append(live, log_offset, "", 0)
            if entry is not None:
                self._journal(entry)
            return self.space

    def _batches_until(self, sequence: int) -> Iterator[Batch]:
        query = "SELECT * FROM batches WHERE first_sequence + rows - 1 <= ? ORDER BY first_sequence"
        for row in self._db.execute(query, (sequence,)).fetchall():
            yield Batch("", *row)

    def _folded(self, batches: Collection[Batch] | Iterator[Batch]) -> Sent:
        state = Sent(self._dimension)
        base = self._db.execute("SELECT ordinal, vector FROM base").fetchall()
        if base:
            vectors = np.frombuffer(b"".join(vector for _, vector in base), "<f4").reshape(len(base), -1)
            ordinals = np.array([ordinal for ordinal, _ in base], np.uint32)
            state.note(Deltas(ordinals, vectors, np.zeros(len(base), np.uint8)))
        for batch in batches:
            state.note(self._deltas(batch))
        return state

    def _deltas(self, batch: Batch) -> Deltas:
        return Deltas(
            np.frombuffer(batch.ordinals, "<u4"),
            np.frombuffer(batch.vectors, "<f4").reshape(batch.rows, self._dimension),
            np.frombuffer(batch.tombstones, np.uint8),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, transaction(self._db):
            yield


def _tail(batch: Batch, first: int, dimension: int) -> Batch:
    skip = first - batch.first_sequence
    if not skip:
        return batch
    return Batch(
        batch.space,
        first,
        batch.rows - skip,
        batch.ordinals[4 * skip :],
        batch.vectors[4 * dimension * skip :],
        batch.tombstones[skip:],
        batch.log_offset,
        batch.traceparent,
        batch.append_time_us,
    )
