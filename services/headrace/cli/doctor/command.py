"""`headrace doctor`: looks at everything that a suite needs, and says what to do where something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.doctor.finding import Finding


@told
def doctor(
    data_dir: DataDir = DATA_DIR,
    address: Address = [],  # noqa: B006  # typer reads it, nobody changes it
    as_json: Json = False,
) -> None:
    """Check connections, versions, migrations, clocks, disk and sync.

    Reads the same environment as the services and asks those that run. Says
    of each thing what was found, and what to do where it is wrong. Changes
    nothing. Exit 1 when something is wrong, 0 when there are warnings only.

    \b
    Examples:
      headrace doctor
      HEADRACE_EVENT_LOG_URL=postgresql://shop@db/events headrace doctor
      headrace doctor --json
    """
    from headrace.cli.doctor.finding import Level
    from headrace.cli.output import print_json

    findings = _findings(data_dir, address)
    worst = max(finding.level for finding in findings)
    if as_json:
        print_json({"worst": worst.word, "findings": [_plain(finding) for finding in findings]})
    else:
        _print(findings)
    raise typer.Exit(1 if worst is Level.FAILURE else 0)


def _findings(data_dir: Path, address: list[str]) -> list[Finding]:
    from headrace.cli.doctor.configuration import configuration
    from headrace.cli.doctor.databases import databases
    from headrace.cli.doctor.finding import Level
    from headrace.cli.doctor.machine import machine
    from headrace.cli.doctor.user_tier import user_tier
    from headrace.runtime.settings import CommonSettings, load

    findings = [*machine(data_dir), *configuration()]
    # what cannot be read cannot be looked at
    if all(finding.level is not Level.FAILURE for finding in findings if finding.part.startswith("settings")):
        findings += databases(load(CommonSettings).model_copy(update={"data_dir": data_dir}))
        findings += user_tier()
    return [*findings, *_services(data_dir, address)]


def _services(data_dir: Path, address: list[str]) -> list[Finding]:
    import asyncio

    from headrace.cli.doctor.finding import ok
    from headrace.cli.doctor.services import services
    from headrace.cli.suite_file import addresses
    from headrace.runtime.errors import NotFoundError

    try:
        known = addresses(data_dir, address)
    except NotFoundError:
        return [ok("services", f"no suite runs in {data_dir}")]
    return list(asyncio.run(services(known)))


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "part": finding.part,
        "level": finding.level.word,
        "found": finding.found,
        "remedy": finding.remedy,
    }


def _print(findings: list[Finding]) -> None:
    width = max(len(one.part) for one in findings)
    for one in findings:
        typer.echo(f"{one.level.word:<8} {one.part:<{width}}  {one.found}")
        if one.remedy:
            typer.echo(f"{'':<8} {'':<{width}}  -> {one.remedy}")
