"""Asks the services of a running suite how they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from headrace.cli.conversation import client_of
from headrace.cli.doctor.clock import clock
from headrace.cli.doctor.finding import Finding, Level, failure, ok, warning
from headrace.cli.status import Status, stages, status_of
from headrace.cli.suite_file import CANDIDATE
from headrace.runtime.clock import MICROSECONDS

_FAR_BEHIND = 10_000
_LAGGING = "see the log of the service, and `headrace status` whether it is catching up"


async def services(addresses: Mapping[str, str]) -> Sequence[Finding]:
    """Whether each service answers, and how far the stages are behind the log."""
    async with client_of(addresses) as client:
        found = await status_of(client)
        return [*_answers(found, addresses), *_lags(found), *_log_clock(found)]


def _answers(found: Status, addresses: Mapping[str, str]) -> list[Finding]:
    down = [
        failure(
            service, f"does not answer at {addresses.get(service, 'an unknown address')}: {reason}", _remedy(service)
        )
        for service, reason in sorted(found.down.items())
    ]
    up = [service for service in addresses if service not in found.down]
    return [*down, ok("services", f"{', '.join(up)} answer")] if up else down


def _remedy(service: str) -> str:
    if service in CANDIDATE:
        return "start the suite with `headrace up --candidate`, or give its --address"
    return f"start it with `headrace up --only {service}`, or give its --address"


def _lags(found: Status) -> list[Finding]:
    return [
        warning(stage["stage"], f"{stage['behind']:,} behind, in {stage['service']}", _LAGGING)
        for stage in stages(found)
        if stage["behind"] > _FAR_BEHIND
    ]


def _log_clock(found: Status) -> list[Finding]:
    """The clock of the log's newest record, where it is ahead of this one: nothing else tells a service's time."""
    newest_s = found.ingest.log_end_time.ToMicroseconds() / MICROSECONDS if found.ingest else 0.0
    finding = clock("clock of the log", newest_s)
    return [finding] if finding.level > Level.OK and newest_s > time.time() else []
