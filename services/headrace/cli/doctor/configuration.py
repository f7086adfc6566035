"""Reads the settings of every service as it would read them itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from headrace.cli.doctor.finding import Finding, failure, ok
from headrace.cli.members import settings_of
from headrace.cli.suite_file import SERVICES
from headrace.runtime.settings import PREFIX, CommonSettings, SettingsError, load


def configuration(environment: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """A failure for each service that would refuse to start in this environment."""
    given = os.environ if environment is None else environment
    faults = {service: fault for service in SERVICES if (fault := _fault(service, given))}
    for service, fault in faults.items():
        yield failure(f"settings of {service}", fault, f"correct it: {service} will not start")
    if not faults:
        names = sorted(name for name in given if name.startswith(PREFIX))
        yield ok("settings", f"given: {', '.join(names) or 'none, all are the defaults'}")


def _fault(service: str, environment: Mapping[str, str]) -> str:
    try:
        load(settings_of(service), environment)
        load(CommonSettings, environment)
    except SettingsError as error:
        return str(error)
    return ""
