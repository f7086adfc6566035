"""A second lineage beside the five services: two more processes over the same files, and a rollout of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.client import Client
from headrace.cli.main import app
from headrace.cli.status import facts_of, stages, status_of
from headrace.cli.suite import Suite
from headrace.cli.suite_file import MEMBERS, read_entries
from headrace.v1.trainer_pb2 import ListReleasesRequest

QUICK = {"HEADRACE_TRAINER_PUBLISH_EVERY_S": "1", "HEADRACE_TRAINER_RANKER_PASSES": "1"}


async def headrace(suite: Suite, *arguments: str) -> str:
    """What the command prints about `suite`; it must succeed."""
    # in a thread: the command has an event loop of its own
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--data-dir", str(suite.data_dir)])
    assert result.exit_code == 0, result.output
    return result.stdout


async def until(holds: Callable[[], Awaitable[bool]], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not await holds():
        assert time.monotonic() < end, f"not within {limit_s:g} s"
        await asyncio.sleep(0.1)


async def _lineages(client: Client) -> dict[str, str]:
    """A release of each lineage."""
    found = await client.trainer.ListReleases(ListReleasesRequest(page_size=100))
    return {release.lineage: release.release for release in found.releases}


@pytest.mark.timeout(240)
async def test_another_lineage_learns_beside_and_is_rolled_out(tmp_path: Path) -> None:
    async with Suite(tmp_path, candidate={"blocks": "2"}, environment=QUICK) as suite, suite.client() as client:
        assert tuple(read_entries(tmp_path)) == MEMBERS
        await headrace(suite, "replay", "simulated-shop", "--to", "2025-03-03T06")

        async def both_released() -> bool:
            served = (await status_of(client)).ranker
            return set(await _lineages(client)) == {"main", "candidate"} and bool(served and served.release)

        await until(both_released)
        config = tmp_path / "artifacts" / "releases" / (await _lineages(client))["candidate"] / "config.json"
        assert json.loads(config.read_text())["towers"]["blocks"] == 2

        started = json.loads(await headrace(suite, "rollout", "start", "--lineage", "candidate", "--json"))
        assert started["lineage"] == "candidate"
        found = await status_of(client)
        assert found.down == {}
        assert {"trainer-candidate", "ranker-canary"} <= {stage["service"] for stage in stages(found)}
        assert f"{started['rollout']}: r-" in str(facts_of(found)["rollout"])

        # it ends with 1 while a learner has not said so
        forgotten = json.loads(await headrace(suite, "forget", "--visitor", "v7", "--json"))
        assert "trainer-candidate" in json.dumps(forgotten)

        await suite.kill("ranker-canary")
        assert set((await status_of(client)).down) == {"ranker-canary"}
        await suite.restart("ranker-canary")
        assert (await status_of(client)).down == {}
