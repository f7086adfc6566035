"""SIGKILL at any moment: nothing lost, nothing doubled, the same weights in the end."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from headrace.trainer.checkpoint import Checkpoint, Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.deltas import Deltas, vectors_digest

_SLICE = 40
_LIMIT_S = 90.0


def _start(folder: Path) -> subprocess.Popen[bytes]:
    """The trainer as it is run in production, with slices of a fixed size."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
        "HEADRACE_DATA_DIR": str(folder),
        # the hashes of people are to be the same in both folders
        "HEADRACE_PRIVACY_KEY": "one for both folders",
        "HEADRACE_TRAINER_PORT": "0",
        "HEADRACE_TRAINER_INDEX_ADDRESS": "127.0.0.1:1",
        "HEADRACE_TRAINER_FEATURE_STORE_ADDRESS": "127.0.0.1:1",
        "HEADRACE_TRAINER_DIMENSION": "8",
        "HEADRACE_TRAINER_MAX_LENGTH": "8",
        "HEADRACE_TRAINER_TEXT_WIDTH": "8",
        "HEADRACE_TRAINER_UNIFORM_NEGATIVES": "16",
        "HEADRACE_TRAINER_POPULAR_NEGATIVES": "16",
        "HEADRACE_TRAINER_SLICE_EVENTS": str(_SLICE),
        "HEADRACE_TRAINER_CATCH_UP_SLICE_EVENTS": str(_SLICE),
        "HEADRACE_TRAINER_CHECKPOINT_EVERY_S": "0.05",
        "HEADRACE_TRAINER_PUBLISH_EVERY_S": "3600",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, "-m", "headrace.trainer"], env=environment, stderr=subprocess.DEVNULL)


def _journalled(folder: Path) -> tuple[int, int]:
    """The newest journal entry, and the offset up to which events are learned."""
    try:
        db = sqlite3.connect(f"file:{folder / 'trainer' / 'deltas.db'}?mode=ro", uri=True)
        query = "SELECT max(entry), max(CASE kind WHEN 'events' THEN until_offset END) FROM journal"
        entry, offset = db.execute(query).fetchone()
        db.close()
    except sqlite3.OperationalError:
        return 0, 0
    return entry or 0, offset or 0


def _wait(process: subprocess.Popen[bytes], folder: Path, entry: int = 0, offset: int = 0) -> None:
    end = time.monotonic() + _LIMIT_S
    while True:
        found = _journalled(folder)
        if found[0] >= entry and found[1] >= offset:
            return
        assert process.poll() is None, "the trainer died by itself"
        assert time.monotonic() < end, f"stuck at {found}"
        time.sleep(0.002)


def _learned(folder: Path, last_offset: int, kill_at: list[int]) -> tuple[Checkpoint, Deltas]:
    for entry in kill_at:
        process = _start(folder)
        _wait(process, folder, entry=entry)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = _start(folder)
    _wait(process, folder, offset=last_offset)
    process.terminate()
    assert process.wait(_LIMIT_S) == 0
    checkpoint = Checkpoints(folder / "trainer" / "checkpoints").newest()
    assert checkpoint is not None
    log = DeltaLog(folder / "trainer" / "deltas.db", "main", 8)
    live = log.live()
    log.close()
    return checkpoint, live


@pytest.mark.timeout(300)
async def test_weights_after_kills_are_those_of_a_run_without(suite, tmp_path: Path) -> None:
    records = [*suite.products(), *suite.visits(305, length=4)]
    last_offset = len(records) // _SLICE * _SLICE
    records = records[:last_offset]
    await suite.write(records)
    calm = tmp_path / "calm"
    calm.mkdir()
    for name in ("events.db", "events.db-wal"):
        if (tmp_path / name).exists():
            (calm / name).write_bytes((tmp_path / name).read_bytes())

    undisturbed, its_live = _learned(calm, last_offset, [])
    killed, live = _learned(tmp_path, last_offset, [2, 15])

    assert killed.facts["standing"]["offset"] == undisturbed.facts["standing"]["offset"] == last_offset
    assert killed.facts["standing"]["examples"] == undisturbed.facts["standing"]["examples"]
    weights = [name for name in undisturbed.arrays if ".towers." in name or ".rows." in name or ".sequences." in name]
    assert weights
    for name in weights:
        np.testing.assert_array_equal(killed.arrays[name], undisturbed.arrays[name], err_msg=name)
    assert live.ordinals.tolist() == its_live.ordinals.tolist()
    # and the log of deltas says exactly what the learner believes to have sent
    is_live = killed.arrays["learner.sent.is_live_N"]
    sent = killed.arrays["learner.sent.vectors_ND"][is_live]
    assert vectors_digest(live) == vectors_digest(Deltas(live.ordinals, sent, np.zeros(len(sent), np.uint8)))
