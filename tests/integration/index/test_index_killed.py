"""What was acknowledged is there after SIGKILL at any moment, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# more of them where there is time: TEST_INDEX_KILLS=200
KILLS = int(os.environ.get("TEST_INDEX_KILLS", "60"))


@pytest.mark.parametrize("work", ["killed_index", "killed_adoption"])
def test_every_acknowledged_vector_survives_being_killed(tmp_path: Path, work: str) -> None:
    worker = Path(__file__).with_name(f"{work}.py")
    ended = subprocess.run(
        [sys.executable, str(worker), str(tmp_path / "index"), str(KILLS), "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
    assert ended.stdout.startswith(f"{KILLS} kills")
