"""The five services as real processes, and the command line against them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headrace.cli.main import app
from headrace.cli.process import ServiceProcess
from headrace.cli.status import status_of
from headrace.cli.suite import SERVICES, Change, Suite
from headrace.cli.suite_file import ServiceEntry, read_entries, suite_file, write_entries
from headrace.runtime.errors import FailedPreconditionError, InvalidRequestError, NotFoundError, UnavailableError

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with Suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


async def headrace(*arguments: str) -> tuple[int, str, str]:
    """Runs the command: status, standard output, standard error."""
    # in a thread: the command has an event loop of its own
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env={"COLUMNS": "160"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


async def answered(suite: Suite, *arguments: str) -> object:
    """The JSON that a command prints about `suite`; it must succeed."""
    status, output, errors = await headrace(*arguments, "--json", "--data-dir", str(suite.data_dir))
    assert status == 0, errors
    return json.loads(output)


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s"
        await asyncio.sleep(0.05)


async def test_all_services_serve_and_are_found_by_the_file(suite: Suite) -> None:
    entries = read_entries(suite.data_dir)

    assert {name: entry.address for name, entry in entries.items()} == suite.addresses
    assert sorted(entries) == sorted(SERVICES)
    assert all(entry.pid and Path(entry.log).exists() for entry in entries.values())
    async with suite.client() as client:
        assert (await status_of(client)).down == {}


async def test_a_day_of_the_shop_goes_through_and_again_it_adds_nothing(suite: Suite) -> None:
    window = ("--from", "2025-03-03", "--to", "2025-03-04")
    first = await answered(suite, "replay", "simulated-shop", *window)
    again = await answered(suite, "replay", "simulated-shop", *window)

    assert isinstance(first, dict)
    assert isinstance(again, dict)
    assert first["accepted"] > 2_000
    assert first["is_simulated"] is True
    assert first["duplicates"] > 0
    assert set(first["rejected"]) <= {"price", "quantity", "time", "unknown-type", "missing", "too-long", "bot-pattern"}
    assert (again["accepted"], again["products_written"]) == (0, 0)
    assert again["duplicates"] == first["accepted"] + first["duplicates"]
    assert again["rejected"] == first["rejected"]


async def test_status_shows_every_stage_reach_the_end_of_the_log(suite: Suite) -> None:
    deadline = time.monotonic() + 60
    while True:
        status = await answered(suite, "status")
        assert isinstance(status, dict)
        if all(stage["behind"] == 0 for stage in status["stages"]) and status["release"]["served"]:
            break
        assert time.monotonic() < deadline, status["stages"]

    assert [stage["stage"] for stage in status["stages"]] == [
        "log",
        "features",
        "learning",
        "deltas pushed",
        "vectors",
        "item features",
        "answers' vectors",
    ]
    assert status["release"]["newest"]


async def test_an_event_changes_what_is_recommended(suite: Suite) -> None:
    written = await answered(suite, "event", "detail-page-view", "--visitor", "cli-1", "--product", "p00001:2")
    assert isinstance(written, list)
    recommended = await answered(
        suite, "recommend", "--visitor", "cli-1", "--config", "recently-viewed", "--min-offset", written[0]["offset"]
    )

    assert isinstance(recommended, dict)
    assert [found["product_id"] for found in recommended["results"]] == ["p00001"]


async def test_a_product_is_found_until_it_is_deleted(suite: Suite, tmp_path: Path) -> None:
    file = tmp_path / "products.json"
    file.write_text(json.dumps([{"id": "cli-x", "title": "Zanzibar teapot", "price_info": {"price": 4.5}}]))
    await answered(suite, "product", "write", "--file", str(file))

    async def found() -> bool:
        answer = await answered(suite, "search", "zanzibar", "--max-price", "5")
        assert isinstance(answer, dict)
        return "cli-x" in {result["product_id"] for result in answer["results"]}

    deadline = time.monotonic() + 20
    while not await found():
        assert time.monotonic() < deadline, "never found"
    await answered(suite, "product", "delete", "cli-x")
    while await found():
        assert time.monotonic() < deadline, "found after its deletion"


async def test_a_refused_event_is_among_the_dead_letters(suite: Suite) -> None:
    arguments = (
        "event",
        "detail-page-view",
        "--visitor",
        "cli-2",
        "--id",
        "refused",
        "--data-dir",
        str(suite.data_dir),
    )
    status, _, errors = await headrace(*arguments)
    letters = await answered(suite, "deadletters", "list", "--size", "1000")
    replayed = await answered(suite, "deadletters", "replay", "--reason", "missing")

    assert (status, "product_details" in errors) == (1, True)
    assert isinstance(letters, dict)
    assert isinstance(replayed, dict)
    assert "refused" in {letter["event"]["event_id"] for letter in letters["dead_letters"]}
    assert int(replayed["still_rejected"]) == int(replayed["replayed"]) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status",), ("Freshness", "feature-store", "release served")),
        (("releases",), ("r-000001",)),
        (("recommend", "--visitor", "cli-1", "--explain", "--size", "3"), ("title", "because", "release r-")),
        (("search", "lamp", "--size", "2", "--visitor", "cli-1"), ("products for 'lamp'", "Lamp")),
        (("search", "", "--category", "Home > Lighting", "--size", "1"), ("more: --page-token",)),
        (("deadletters", "list", "--size", "1"), ("Dead letters",)),
        (("deadletters", "replay", "1"), ("replayed", "still rejected")),
        (
            ("replay", "simulated-shop", "--to", "2025-03-03T02:00", "--speed", "7200x", "--in-flight", "2"),
            ("nobody ever bought any of this", "events per second"),
        ),
        (("event", "home-page-view", "--visitor", "cli-3"), ("accepted", "offset")),
        (("product", "write", "cli-y", "--title", "Plain pot"), ("accepted cli-y",)),
        (("product", "delete", "cli-y"), ("deleted cli-y",)),
    ],
)
async def test_people_get_text(suite: Suite, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    status, output, errors = await headrace(*arguments, "--data-dir", str(suite.data_dir))

    assert status == 0, errors
    assert all(word in output for word in words), output


async def test_a_retraining_reads_the_log_of_a_running_suite(suite: Suite, tmp_path: Path) -> None:
    report = await answered(suite, "train", "--from-scratch", "--epochs", "1", "--out", str(tmp_path / "model"))
    _, output, errors = await headrace(
        *("train", "--from-scratch", "--epochs", "1", "--out", str(tmp_path / "again")),
        *("--data-dir", str(suite.data_dir)),
    )

    assert isinstance(report, dict)
    assert report["examples"] > 0
    assert (tmp_path / "model" / "vectors.safetensors").is_file()
    assert "epoch 1 of 1: loss " in errors
    assert "log offset" in output


async def test_an_impossible_request_is_told_by_field(suite: Suite) -> None:
    status, output, errors = await headrace(
        "recommend", "--visitor", "v", "--config", "nonsense", "--data-dir", str(suite.data_dir)
    )

    assert (status, output) == (2, "")
    assert errors.startswith("headrace: serving_config: ")


async def test_a_killed_service_shows_as_down_and_comes_back(suite: Suite) -> None:
    before = suite.pid("index")
    await suite.kill("index")
    async with suite.client() as client:
        assert set((await status_of(client)).down) == {"index"}
        assert suite.pid("index") == 0
        await suite.restart("index")
        assert (await status_of(client)).down == {}
    assert suite.pid("index") not in (0, before)


async def test_two_suites_cannot_share_a_folder(suite: Suite) -> None:
    with pytest.raises(FailedPreconditionError, match="a suite runs in"):
        async with Suite(suite.data_dir):
            pass
    assert suite_file(suite.data_dir).exists()


async def test_a_service_that_is_not_of_the_suite_is_refused(suite: Suite) -> None:
    with pytest.raises(NotFoundError, match="not part of this suite"):
        await suite.start("kitchen")
    with pytest.raises(InvalidRequestError, match="must be among"):
        Suite(suite.data_dir, services=["kitchen"])


async def test_a_service_that_cannot_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"(?s)index ended before it was ready.*HEADRACE_INDEX_NONSENSE"):
        async with Suite(tmp_path, services=["index"], environment={"HEADRACE_INDEX_NONSENSE": "1"}):
            pass
    assert not suite_file(tmp_path).exists()


async def test_a_service_that_dies_is_reported_and_started_again(tmp_path: Path) -> None:
    changes: list[Change] = []
    async with Suite(tmp_path, services=["ingest"], restart=True, on_change=changes.append) as suite:
        first = suite.pid("ingest")
        os.kill(first, signal.SIGKILL)
        await until(lambda: suite.pid("ingest") not in (0, first))
        await suite.wait_ready()
    assert [change.what for change in changes] == [
        "started",
        "ready",
        "died",
        "restarting",
        "started",
        "ready",
        "stopped",
    ]
    assert "killed by signal 9" in changes[2].detail


async def test_services_that_a_killed_suite_left_behind_are_stopped_first(tmp_path: Path) -> None:
    orphan = ServiceProcess("ingest", {**os.environ, "HEADRACE_DATA_DIR": str(tmp_path)}, tmp_path / "orphan.log")
    await orphan.start()
    write_entries(tmp_path, {"ingest": ServiceEntry("127.0.0.1:1", orphan.pid, ""), "index": ServiceEntry("", 1, "")})
    left_behind = orphan.pid
    changes: list[Change] = []

    async with Suite(tmp_path, services=["ingest"], on_change=changes.append) as suite:
        assert suite.pid("ingest") != left_behind

    assert await orphan.wait() is not None
    assert [change.service for change in changes if change.what == "left-behind"] == ["ingest"]


async def test_a_process_that_does_not_heed_is_killed(tmp_path: Path) -> None:
    process = ServiceProcess("ingest", {**os.environ, "HEADRACE_DATA_DIR": str(tmp_path)}, tmp_path / "log")
    await process.start()
    await until(lambda: '"serving"' in process.log_tail())
    # a stopped process handles no signal but SIGKILL
    os.kill(process.pid, signal.SIGSTOP)
    await process.stop(grace_s=0.1)

    assert await process.wait() == -signal.SIGKILL
    assert (process.pid, process.is_running) == (0, False)
    await process.stop(grace_s=0.1)


async def test_up_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    up = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace.cli.main",
        *("up", "--only", "ingest", "--json", "--data-dir", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert up.stdout is not None
    while b'"ready"' not in await up.stdout.readline():
        pass
    service = read_entries(tmp_path)["ingest"].pid
    up.send_signal(signal.SIGINT)

    assert await asyncio.wait_for(up.wait(), 30) == 0
    assert not suite_file(tmp_path).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(service, 0)
