"""The command's face is frozen: `UPDATE_HELP=1 pytest tests/unit/cli/test_cli_help.py` writes it anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli.main import app

HELP = Path(__file__).parent / "help"
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "FORCE_COLOR": "", "GITHUB_ACTIONS": ""}


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group of commands, as the words that name it."""
    found = [path]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


PATHS = commands(typer.main.get_command(app))
GROUPS = {path[:-1] for path in PATHS if path}


def help_of(path: tuple[str, ...]) -> str:
    answer = CliRunner().invoke(app, [*path, "--help"], env=PLAIN, prog_name="headrace")
    assert answer.exit_code == 0, answer.output
    text = re.sub(r"\x1b\[[0-9;]*m", "", answer.output)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip() + "\n"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: "-".join(("headrace", *path)))
def test_help_is_what_was_agreed(path: tuple[str, ...]) -> None:
    file = HELP / ("-".join(("headrace", *path)) + ".txt")
    if os.environ.get("UPDATE_HELP"):
        file.write_text(help_of(path))

    assert help_of(path) == file.read_text()


def test_no_help_text_is_left_over() -> None:
    assert {file.stem for file in HELP.glob("*.txt")} == {"-".join(("headrace", *path)) for path in PATHS}


@pytest.mark.parametrize("path", [path for path in PATHS if path not in GROUPS])
def test_every_command_has_an_example_and_json(path: tuple[str, ...]) -> None:
    text = help_of(path)

    assert "Example" in text
    assert "  headrace " + " ".join(path) in text
    assert "--json" in text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, headrace.cli.main\n"
        "print([name for name in ('grpc', 'numpy', 'polars', 'torch', 'pydantic', 'google.protobuf') "
        "if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "[]"
