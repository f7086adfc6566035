"""Rollouts while registries and rankers are killed: the benchmark of 50 of them, with a few."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.rollout_kills import played
from benchmarks.rollout_kills_play import VICTIMS
from benchmarks.rollout_kills_stage import Databases

ROLLOUTS = int(os.environ.get("TEST_ROLLOUT_KILLS", "3"))


async def test_every_rollout_ends_as_it_should_whatever_is_killed(tmp_path: Path) -> None:
    seen = await played(tmp_path, Databases(), ROLLOUTS, max(ROLLOUTS, len(VICTIMS)), seed=20)
    assert {what: found for what, found in seen.faults().items() if found} == {}
    assert seen.killed.keys() == set(VICTIMS)
    assert len(seen.rollouts) >= ROLLOUTS
    assert seen.callers.answers
