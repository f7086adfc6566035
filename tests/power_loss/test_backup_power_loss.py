"""Backups after the power went: one that is there is whole, and what was said to be kept or put back is there."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.power_loss.recording import Recording
from headrace.cli.moving.log_copy import described
from headrace.cli.moving.state_files import Manifest, read_manifest
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings

# a thousand cuts take their time
pytestmark = pytest.mark.timeout(1_800)
_worker = runpy.run_path(str(Path(__file__).with_name("backup_worker.py")))


async def check_restored(folder: Path, manifest: Manifest, shop: Path) -> None:
    """The shop's states byte for byte, and its log."""
    for name in (*_worker["STATES"], "privacy.key"):
        assert (folder / name).read_bytes() == (shop / name).read_bytes()
    log = open_event_log(CommonSettings(data_dir=folder))
    assert await described(log, manifest.log.end) == manifest.log
    await log.close()


async def test_a_backup_is_whole_or_none_and_what_was_put_back_stays(
    record: Callable[..., Recording], run_recorded: Callable[..., None], cuts: Callable[[int], int], tmp_path: Path
) -> None:
    shop = tmp_path / "shop"
    await asyncio.to_thread(_worker["make_shop"], shop)
    recording = record(tmp_path / "data")
    run_recorded(recording, "backup_worker.py", recording.folder, recording.journal, shop)
    assert recording.faults() == []
    unfinished = 0
    for loss in recording.power_losses(cuts(25), seed=1):
        told = [tuple(json.loads(one)) for one in loss.acknowledged]
        for number in range(_worker["TIMES"]):
            kept = loss.folder / f"kept-{number}"
            if (kept / "backup.json").exists():
                manifest = read_manifest(kept)
                assert set(_worker["STATES"]) < manifest.files.keys()
            else:
                assert ("kept", number) not in told
                unfinished += 1
            if ("restored", number) in told:
                await check_restored(loss.folder / f"restored-{number}", manifest, shop)
    # it was looked at in the middle too
    assert unfinished
