"""The trainer's stores after the power went: no act, checkpoint or release that was there before is missing or torn."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.power_loss.recording import Recording
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.deltas import Sent

# a thousand cuts take their time
pytestmark = pytest.mark.timeout(1_800)
_worker = runpy.run_path(str(Path(__file__).with_name("trainer_worker.py")))
STEPS = 60


def newest(acknowledged: Iterable[bytes]) -> dict[str, int]:
    """The highest number told of each kind."""
    found = {"entry": 0, "checkpoint": 0, "release": 0}
    for what, number in map(json.loads, acknowledged):
        found[what] = max(found[what], number)
    return found


def check_deltas(folder: Path, told: int) -> None:
    """The log holds exactly the deltas of the acts in its journal."""
    log = _worker["open_log"](folder)
    entries = [entry.number for entry in log.journal(0)]
    last = entries[-1] if entries else 0
    assert entries == list(range(1, last + 1))
    assert last >= told
    assert log.last_sequence == last * _worker["ROWS"]
    state = Sent(_worker["DIMENSION"])
    for step in entries:
        state.note(_worker["deltas_of"](step))
    live, expected = log.live(), state.all()
    np.testing.assert_array_equal(live.ordinals, expected.ordinals)
    np.testing.assert_array_equal(live.vectors, expected.vectors)
    log.close()


def check_checkpoint(folder: Path, told: int) -> None:
    checkpoint = Checkpoints(folder / "trainer" / "checkpoints").newest()
    assert (checkpoint.entry if checkpoint else 0) >= told
    if checkpoint:
        assert checkpoint.arrays["values"].tolist() == [checkpoint.entry] * 500


def check_releases(folder: Path, told: set[int]) -> None:
    registry, artifacts = _worker["open_releases"](folder)
    releases = registry.releases(1_000)
    numbers = [release.number for release in releases]
    # a number whose release was not finished is never given again
    assert numbers == sorted(set(numbers), reverse=True)
    assert told <= set(numbers)
    for release in releases:
        (part,) = release.parts
        artifacts.read(f"releases/{release.name}/{part.name}", part.sha256)
    registry.close()


def test_acts_checkpoints_and_releases_are_there_after_the_power_went(
    record: Callable[..., Recording], run_recorded: Callable[..., None], cuts: Callable[[int], int], tmp_path: Path
) -> None:
    recording = record(tmp_path / "data")
    for kill_at in (9, 30, 0):
        run_recorded(recording, "trainer_worker.py", recording.folder, recording.journal, STEPS, kill_at=kill_at)
    assert recording.faults() == []
    for loss in recording.power_losses(cuts(30), seed=1):
        told = newest(loss.acknowledged)
        check_deltas(loss.folder, told["entry"])
        check_checkpoint(loss.folder, told["checkpoint"])
        check_releases(
            loss.folder, {number for what, number in map(json.loads, loss.acknowledged) if what == "release"}
        )
