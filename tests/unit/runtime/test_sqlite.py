"""Opening one new database from several processes at once."""

from __future__ import annotations

import multiprocessing
import sqlite3
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from headrace.runtime.sqlite import create_tables, make_durable

ROUNDS, PROCESSES = 20, 4


def open_together(folder: Path, barrier: Barrier, failures: multiprocessing.Queue[str]) -> None:
    for number in range(ROUNDS):
        barrier.wait()
        try:
            with sqlite3.connect(folder / f"{number}.db", isolation_level=None) as db:
                make_durable(db)
                create_tables(db, "CREATE TABLE IF NOT EXISTS t (x INTEGER);")
        except sqlite3.Error as error:
            failures.put(f"{number}: {error}")


def test_a_new_file_can_be_opened_by_several_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, failures = context.Barrier(PROCESSES), context.Queue()
    processes = [context.Process(target=open_together, args=(tmp_path, barrier, failures)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert failures.empty(), failures.get()


def test_an_error_that_is_no_lock_is_raised_at_once(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, only words in a file " * 40)
    with sqlite3.connect(tmp_path / "text.db") as db, pytest.raises(sqlite3.DatabaseError, match="not a database"):
        make_durable(db)
