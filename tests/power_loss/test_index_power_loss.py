"""The index after the power went: at least what it acknowledged, and exactly what was sent up to there."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.power_loss.recording import PowerLoss, Recording
from headrace.index.store import Store

# a thousand cuts take their time
pytestmark = pytest.mark.timeout(1_800)
_worker = runpy.run_path(str(Path(__file__).with_name("index_worker.py")))
_killed = _worker["_killed"]
BATCHES = 160
ROWS, DIMENSION = _worker["ROWS"], _worker["DIMENSION"]


async def recovered(folder: Path) -> tuple[int, str]:
    """The sequence that a store comes up with, and what it holds then."""
    store = Store(folder / "index", _worker["make"], wal_file_bytes=_worker["WAL_FILE_BYTES"])
    await store.create("s", DIMENSION)
    space = store.space("s")
    found = space.applied_sequence, _killed["fingerprint"](space)
    await store.apply(_killed["batch_after"](space.applied_sequence))
    await store.close()
    return found


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """What a store holds after so many batches."""
    known = _killed["Expected"]()
    return [_killed["fingerprint"](known.at(number * ROWS)) for number in range(BATCHES + 1)]


async def check(loss: PowerLoss, expected: list[str]) -> None:
    sequence, held = await recovered(loss.folder)
    assert sequence >= max(map(int, loss.acknowledged), default=0), f"cut {loss.number}"
    assert held == expected[sequence // ROWS], f"cut {loss.number}"


async def test_every_acknowledged_sequence_is_there_after_the_power_went(
    record: Callable[..., Recording],
    run_recorded: Callable[..., None],
    cuts: Callable[[int], int],
    tmp_path: Path,
    expected: list[str],
) -> None:
    recording = record(tmp_path / "data")
    # far from all of them: a kill may come a good while after it is called for
    for kill_at in (2, 15, 30, 20, 0):
        run_recorded(recording, "index_worker.py", recording.folder, recording.journal, BATCHES * ROWS, kill_at=kill_at)
    assert recording.faults() == []
    for loss in recording.power_losses(cuts(30), seed=1):
        await check(loss, expected)


async def test_what_was_recovered_from_a_power_loss_outlives_the_next_one(
    record: Callable[..., Recording],
    run_recorded: Callable[..., None],
    cuts: Callable[[int], int],
    tmp_path: Path,
    expected: list[str],
) -> None:
    first = record(tmp_path / "data")
    run_recorded(first, "index_worker.py", first.folder, first.journal, 20 * ROWS)
    for loss in first.power_losses(max(3, cuts(30) // 10), seed=2, after_first_answer=True):
        folder = tmp_path / f"again-{loss.number}"
        shutil.copytree(loss.folder, folder)
        again = record(folder)
        run_recorded(again, "index_worker.py", again.folder, again.journal, 35 * ROWS)
        assert again.faults() == []
        for second in again.power_losses(10, seed=3, after_first_answer=True):
            await check(second, expected)
