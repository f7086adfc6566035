"""Options that commands share, and the words for what goes wrong."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

from headrace.runtime.errors import HeadraceError, InvalidRequestError, SettingsError

P = ParamSpec("P")
R = TypeVar("R")

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", help="Folder of the suite: its data, logs and suite.json.", envvar="HEADRACE_DATA_DIR"),
]
Address = Annotated[
    list[str],
    typer.Option(
        "--address",
        metavar="SERVICE=HOST:PORT",
        help="Where a service is, when no suite.json says so. May be repeated.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data sets (or HEADRACE_DATA).", show_default=False)
]

DATA_DIR = Path(".headrace")


def told(command: Callable[P, R]) -> Callable[P, R]:
    """The command with known errors told in a sentence on standard error: exit 2 for the caller's fault, else 1."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (InvalidRequestError, SettingsError) as error:
            fault, code = str(error), 2
        except HeadraceError as error:
            fault, code = str(error), 1
        except ModuleNotFoundError as error:
            extra = "trainer" if error.name in ("torch", "safetensors", "scipy") else "datasets"
            fault, code = f"this needs the package {error.name}: pip install 'headrace[{extra}]'", 1
        except KeyboardInterrupt:
            fault, code = "stopped", 130
        print(f"headrace: {fault}", file=sys.stderr)  # noqa: T201  # this is the command's face
        raise typer.Exit(code)

    return run


def moment(text: str | None, option: str) -> datetime | None:
    """An ISO date or time in UTC; None for none. InvalidRequestError when it is neither."""
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequestError.of(option, f"must be a date such as 2011-03-07, got {text!r}") from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
