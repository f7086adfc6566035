"""The index after the power went: at least what it acknowledged, and exactly what was sent up to there."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

from benchmarks.power_loss.recording import Recording
from headrace.index.store import Store

_worker = runpy.run_path(str(Path(__file__).with_name("index_worker.py")))
_killed = _worker["_killed"]
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


async def test_every_acknowledged_sequence_is_there_after_the_power_went(
    record: Callable[..., Recording], run_recorded: Callable[..., None], cuts: Callable[[int], int], tmp_path: Path
) -> None:
    recording = record(tmp_path / "data")
    for kill_at in (2, 25, 80, 120, 0):
        run_recorded(recording, "index_worker.py", recording.folder, recording.journal, 160 * ROWS, kill_at=kill_at)
    assert recording.faults() == []
    expected = [_killed["fingerprint"](_killed["Expected"]().at(0))]
    space = _killed["Expected"]()
    expected += [_killed["fingerprint"](space.at(number * ROWS)) for number in range(1, 161)]
    for loss in recording.power_losses(cuts(60), seed=1):
        sequence, held = await recovered(loss.folder)
        assert sequence >= max(map(int, loss.acknowledged), default=0), f"cut {loss.number}"
        assert held == expected[sequence // ROWS], f"cut {loss.number}"
