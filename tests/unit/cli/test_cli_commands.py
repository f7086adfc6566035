from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headrace import __version__
from headrace.cli.main import app
from headrace.cli.suite_file import ServiceEntry, addresses, read_entries, suite_file, write_entries
from headrace.runtime.errors import InvalidRequestError, NotFoundError


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=text)


def test_version_for_people_and_programs() -> None:
    assert run("version").output == f"headrace {__version__}\n"
    assert json.loads(run("version", "--json").output) == {"version": __version__}


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("recommend", "--visitor", "v1"),
        ("search", "lamp"),
        ("event", "search", "--visitor", "v1", "--query", "lamp"),
        ("product", "write", "p1", "--title", "Lamp"),
        ("product", "delete", "p1"),
        ("deadletters", "list"),
        ("deadletters", "replay"),
        ("releases",),
        ("replay", "simulated-shop"),
    ],
)
def test_without_a_suite_every_command_says_how_to_start_one(arguments: tuple[str, ...], tmp_path: Path) -> None:
    answer = run(*arguments, "--data-dir", str(tmp_path))

    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert f"no suite runs in {tmp_path}: start one with `headrace up`" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("recommend", "--address", "nonsense"), "must be SERVICE=HOST:PORT"),
        (("replay", "simulated-shop", "--speed", "fast"), "--speed: must be max or a number, got 'fast'"),
        (("replay", "simulated-shop", "--speed", "-3"), "--speed: must be above 0"),
        (("replay", "simulated-shop", "--from", "yesterday"), "--from: must be a date such as 2011-03-07"),
        (("event", "search", "--at", "noon"), "--at: must be a date"),
        (("product", "write"), "name an ID or a --file, not both"),
        (("product", "write", "p1", "--file", "x.json"), "name an ID or a --file, not both"),
        (("product", "write", "--file", "not-there.json"), "--file: cannot be read"),
        (("import", "events", "f.csv", "--mapping", "not-there.toml"), "not-there.toml: cannot be read"),
        (("train",), "say --from-scratch"),
        (("up", "--only", "kitchen"), "must be among ingest, feature-store"),
    ],
)
def test_a_callers_fault_is_a_sentence_and_exit_2(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    answer = run(*arguments, "--data-dir", str(tmp_path))

    assert answer.exit_code == 2
    assert sentence in answer.stderr
    assert answer.stderr.startswith("headrace: ")


def test_an_unknown_data_set_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    answer = run("replay", "netflix", "--data-dir", str(tmp_path))

    assert (answer.exit_code, "known: online_retail" in answer.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "--file: is not JSON"),
        ("[3]", "products[0]: must be an object, got 3"),
        ('[{"id": "p1"}, {"colour": "red"}]', "products[1]: "),
    ],
)
def test_a_bad_product_file_is_named_by_place(text: str, sentence: str, tmp_path: Path) -> None:
    answer = run("product", "write", "--file", "-", "--data-dir", str(tmp_path), text=text)

    assert (answer.exit_code, sentence in answer.stderr) == (2, True)


def test_a_service_that_does_not_answer_is_told_in_a_sentence(tmp_path: Path) -> None:
    answer = run("product", "delete", "p1", "--address", "ingest=127.0.0.1:1", "--data-dir", str(tmp_path))

    assert answer.exit_code == 1
    assert "the service did not answer" in answer.stderr


def test_status_of_services_that_are_down_says_which(tmp_path: Path) -> None:
    answer = run("status", "--address", "ranker=127.0.0.1:1", "--data-dir", str(tmp_path), "--json")

    status = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert sorted(status["down"]) == ["feature-store", "index", "ingest", "ranker", "trainer"]
    assert status["down"]["trainer"] == "no address of trainer is known; known: ranker"
    assert status["down"]["ranker"].startswith("UNAVAILABLE")


def test_training_without_a_log_says_where_it_was_looked_for(tmp_path: Path) -> None:
    answer = run("train", "--from-scratch", "--data-dir", str(tmp_path))

    assert (answer.exit_code, f"no event log at {tmp_path / 'events.db'}" in answer.stderr) == (1, True)


def test_a_package_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None in sys.modules makes an import fail the way a missing package does
    monkeypatch.setitem(sys.modules, "headrace.datasets.chorus", None)
    (tmp_path / "chorus_search").mkdir()

    answer = run("replay", "chorus", "--data", str(tmp_path), "--data-dir", str(tmp_path))

    assert (answer.exit_code, "pip install 'headrace[datasets]'" in answer.stderr) == (1, True)


def test_the_simulated_shop_needs_no_table_reader() -> None:
    code = "import sys, headrace.datasets.simulated_shop, headrace.datasets.prequential; print('polars' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "False"


def test_addresses_come_from_the_suites_file_and_options_override_them(tmp_path: Path) -> None:
    write_entries(tmp_path, {"ingest": ServiceEntry("127.0.0.1:7401", 17, "log"), "index": ServiceEntry("h:2", 0, "")})

    assert read_entries(tmp_path)["ingest"].pid == 17
    assert addresses(tmp_path, ["index=other:9"]) == {"ingest": "127.0.0.1:7401", "index": "other:9"}
    suite_file(tmp_path).unlink()
    assert addresses(tmp_path, ["index=other:9"]) == {"index": "other:9"}
    with pytest.raises(NotFoundError, match="no suite runs"):
        addresses(tmp_path, [])
    with pytest.raises(InvalidRequestError, match="SERVICE=HOST:PORT"):
        addresses(tmp_path, ["kitchen=h:1"])
