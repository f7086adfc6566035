"""The event log in SQLite after the power went: what was acknowledged is there, once, at its offset."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from benchmarks.power_loss.recording import PowerLoss, Recording
from headrace.runtime.eventlog import LoggedRecord, Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog

# a thousand cuts take their time
pytestmark = pytest.mark.timeout(1_800)
_worker = runpy.run_path(str(Path(__file__).with_name("append_worker.py")))
BATCHES, SEED = 60, 3
SENT: Mapping[str, Record] = {
    record.event_id: record
    for caller in range(_worker["CALLERS"])
    for number in range(BATCHES)
    for record in _worker["batch_of"](caller, number, SEED)
}


def lost(loss: PowerLoss, found: list[LoggedRecord]) -> list[str]:
    """Acknowledged ids that are not where the clients were told that they are."""
    places = {record.event_id: record.offset for record in found}
    told = {name: offset for part in loss.acknowledged for name, offset in json.loads(part).items()}
    return [name for name, offset in told.items() if places.get(name) != offset]


async def read_all(folder: Path) -> list[LoggedRecord]:
    log = SqliteEventLog(folder / "events.db")
    found = await log.read(0, limit=1_000_000)
    (again,) = await log.append([Record("user-event", "u:1", "after", 1, b"")])
    assert again.offset == len(found) + 1
    await log.close()
    return found


def check(found: list[LoggedRecord]) -> None:
    assert [record.offset for record in found] == list(range(1, len(found) + 1))
    assert len({record.event_id for record in found}) == len(found)
    for record in found:
        sent = SENT[record.event_id]
        assert (record.key, record.time_us, record.payload) == (sent.key, sent.time_us, sent.payload)


async def test_every_acknowledged_event_is_there_once_after_the_power_went(
    record: Callable[..., Recording], run_recorded: Callable[..., None], cuts: Callable[[int], int], tmp_path: Path
) -> None:
    recording = record(tmp_path / "data")
    arguments = ("append_worker.py", recording.folder, "", recording.journal, SEED, BATCHES)
    for kill_at in (40, 80, 0):
        run_recorded(recording, *arguments, kill_at=kill_at)
    assert recording.faults() == []
    for loss in recording.power_losses(cuts(40), seed=1):
        found = await read_all(loss.folder)
        check(found)
        assert lost(loss, found) == [], f"cut {loss.number}"


async def test_a_disk_that_does_not_sync_is_found_out(
    record: Callable[..., Recording], run_recorded: Callable[..., None], tmp_path: Path
) -> None:
    recording = record(tmp_path / "data")
    run_recorded(recording, "append_worker.py", recording.folder, "", recording.journal, SEED, 20, syncs=False)
    assert await losses_of(recording)


async def losses_of(recording: Recording) -> int:
    """Of twenty cuts, those that lost what was acknowledged, or the file itself."""
    count = 0
    for loss in recording.power_losses(20, seed=1):
        try:
            count += bool(lost(loss, await read_all(loss.folder)))
        except Exception:  # noqa: BLE001  # a file that cannot be read is a loss
            count += 1
    return count
