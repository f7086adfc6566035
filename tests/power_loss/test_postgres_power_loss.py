"""The event log in PostgreSQL after the power went under the server: it recovers, and the log is whole."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from benchmarks.postgres_server import PostgresServer
from benchmarks.power_loss.recording import PowerLoss, Recording
from headrace.runtime.eventlog import LoggedRecord
from headrace.runtime.eventlog.postgres import PostgresEventLog

# a thousand cuts take their time
pytestmark = pytest.mark.timeout(1_800)
_logs = runpy.run_path(str(Path(__file__).with_name("test_sqlite_power_loss.py")))
ROUNDS = 2


@pytest.fixture
def place(has_postgres: None, recorder: Path) -> Iterator[Path]:
    """A folder that the server's user can reach, with the recorder in it."""
    with tempfile.TemporaryDirectory(prefix="headrace-power-") as folder:
        Path(folder).chmod(0o755)
        shutil.copy(recorder, folder)
        yield Path(folder)


@contextmanager
def started(server: PostgresServer) -> Iterator[PostgresServer]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


def recorded(place: Path) -> tuple[Recording, str]:
    """A server into which clients appended, with checkpoints in between, until it was killed; the log's database."""
    folder, work = place / "server", place / "work"
    folder.mkdir()
    work.mkdir()
    # initialised and stopped, so that the recording begins with a folder at rest
    PostgresServer(folder)
    recording = Recording(folder / "data", work, place / "recorder.so", syncs_names=True)
    with started(PostgresServer(folder, recording.environment(), ("max_wal_size=32MB", "min_wal_size=32MB"))) as server:
        url = server.new_database()
        for number in range(1, ROUNDS + 1):
            append(url, recording, number * _logs["BATCHES"] // ROUNDS)
            with psycopg.connect(url, autocommit=True) as admin:
                admin.execute("CHECKPOINT")
                admin.execute("SELECT pg_switch_wal()")
        append(url, recording, _logs["BATCHES"])
    return recording, url.rpartition("/")[2]


def append(url: str, recording: Recording, batches: int) -> None:
    worker = Path(__file__).with_name("append_worker.py")
    arguments = [str(recording.folder), url, str(recording.journal), str(_logs["SEED"]), str(batches)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, str(worker), *arguments], check=True, timeout=60, env=environment)


async def found_after(loss: PowerLoss, database: str) -> list[LoggedRecord]:
    """The whole log, read from a server that recovered."""
    # what it recovers from is what counts: nobody takes the power from this one
    with started(PostgresServer(loss.folder.parent, options=("fsync=off",))) as server:
        log = PostgresEventLog(server.url(database))
        found = await log.read(0, limit=1_000_000)
        await log.close()
    return found


async def test_every_acknowledged_event_is_there_once_after_the_power_went(
    place: Path, cuts: Callable[[int], int]
) -> None:
    recording, database = recorded(place)
    assert recording.faults() == []
    for loss in recording.power_losses(cuts(3), seed=1, after_first_answer=True):
        found = await found_after(loss, database)
        _logs["check"](found)
        assert _logs["lost"](loss, found) == [], f"cut {loss.number}"
    recording.close()
