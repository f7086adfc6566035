"""Recordings of real processes on a folder of their own, and how many cuts a store gets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.power_loss.journal import Kind, entries
from benchmarks.power_loss.recording import KILL, NoCompilerError, Recording, build_recorder

_LIMIT_S = 60.0
Record = Callable[..., Recording]


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to be preloaded. Without a compiler: skipped, or failed where TEST_REQUIRE_POWER_LOSS says so."""
    try:
        return build_recorder(tmp_path_factory.mktemp("recorder"))
    except NoCompilerError as error:
        if os.environ.get("TEST_REQUIRE_POWER_LOSS"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def cuts() -> Callable[[int], int]:
    """How many cuts: so many, or more of them where there is time: TEST_POWER_CUTS=1000."""
    return lambda usual: int(os.environ.get("TEST_POWER_CUTS", usual))


@pytest.fixture
def record(recorder: Path, tmp_path: Path) -> Iterator[Record]:
    """A recording of a folder, made when missing."""
    opened: list[Recording] = []

    def begin(folder: Path) -> Recording:
        folder.mkdir(exist_ok=True)
        work = tmp_path / f"recording-{len(opened)}"
        work.mkdir()
        opened.append(Recording(folder, work, recorder))
        return opened[-1]

    yield begin
    for recording in opened:
        recording.close()


@pytest.fixture
def run_recorded() -> Callable[..., None]:
    return _run


def _run(recording: Recording, worker: str, *arguments: object, kill_at: int = 0, syncs: bool = True) -> None:
    """Runs a worker of this folder to its end, or kills it once it has noted `kill_at` acknowledgements."""
    before = acknowledgements(recording)
    script = Path(__file__).with_name(worker)
    command = [sys.executable, str(script), *map(str, arguments)]
    others = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment = others | recording.environment(syncs=syncs) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment)
    if kill_at:
        _wait_for(process, recording, before + kill_at)
        process.send_signal(KILL)
        assert process.wait() == -signal.SIGKILL
    else:
        assert process.wait(_LIMIT_S) == 0


def _wait_for(process: subprocess.Popen[bytes], recording: Recording, acknowledged: int) -> None:
    until = time.monotonic() + _LIMIT_S
    while acknowledgements(recording) < acknowledged:
        assert process.poll() is None, "the worker ended before it was to be killed"
        assert time.monotonic() < until, "the worker does not get on"
        time.sleep(0.01)


def acknowledgements(recording: Recording) -> int:
    return sum(entry.kind is Kind.ACKNOWLEDGE for entry in entries(recording.journal))
