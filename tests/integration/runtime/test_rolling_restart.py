"""A storefront loses no event while the only door is replaced; the whole suite is `benchmarks/rolling_restart.py`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rolling_restart import logged, replaced
from headrace.runtime.settings import CommonSettings


async def test_no_event_is_lost_while_the_only_door_is_replaced_in_place(tmp_path: Path) -> None:
    environment = {"HEADRACE_LOG_LEVEL": "WARNING"}
    found = await replaced(tmp_path, {"ingest": 1}, environment, seed=20, calls=100)
    assert found.calls.lost == []
    assert set(found.statuses["ingest"]) == {0}
    in_log = await logged(CommonSettings(data_dir=tmp_path / "ingest-0"))
    assert len(found.calls.acknowledged) >= 100
    assert [event for event in found.calls.acknowledged if in_log[event] != 1] == []
