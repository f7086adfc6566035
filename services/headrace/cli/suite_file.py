"""Where a running suite can be found: `suite.json` in its data directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.runtime.atomic import write_atomically
from headrace.runtime.errors import InvalidRequestError, NotFoundError

SERVICES = ("ingest", "feature-store", "trainer", "index", "ranker")
# processes that try another lineage beside them; each is one of the services, in another role
CANDIDATE_RANKER, CANDIDATE_LEARNER = "ranker-canary", "trainer-candidate"
CANDIDATE = (CANDIDATE_RANKER, CANDIDATE_LEARNER)
MEMBERS = (*SERVICES, *CANDIDATE)


def service_of(member: str) -> str:
    """`ranker-canary` → `ranker`; a service is its own."""
    return {CANDIDATE_RANKER: "ranker", CANDIDATE_LEARNER: "trainer"}.get(member, member)


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service of a suite: host:port, process id (0: not running), log file."""

    address: str
    pid: int
    log: str


@dataclass(frozen=True, slots=True)
class _Suite:
    services: dict[str, ServiceEntry]


def suite_file(data_dir: Path) -> Path:
    return data_dir / "suite.json"


def write_entries(data_dir: Path, entries: Mapping[str, ServiceEntry]) -> None:
    """Replaces suite.json."""
    text = json.dumps({"services": {name: asdict(entry) for name, entry in entries.items()}}, indent=2)
    write_atomically(suite_file(data_dir), text.encode() + b"\n")


def read_entries(data_dir: Path) -> dict[str, ServiceEntry]:
    """What suite.json says; empty when there is none. CorruptDataError: it is not what `headrace up` writes."""
    from headrace.runtime.stored_json import parsed

    path = suite_file(data_dir)
    try:
        return parsed(_Suite, path.read_bytes(), str(path)).services
    except FileNotFoundError:
        return {}


def addresses(data_dir: Path, given: list[str]) -> dict[str, str]:
    """Addresses by service: those of the suite in `data_dir`, overridden by `given` ("ingest=host:port").

    InvalidRequestError for a malformed one; NotFoundError when nothing is known at all.
    """
    found = {name: entry.address for name, entry in read_entries(data_dir).items()}
    found |= dict(_parsed(item) for item in given)
    if not found:
        raise NotFoundError(
            f"no suite runs in {data_dir}: start one with `headrace up`, "
            "or name services with --address ingest=HOST:PORT"
        )
    return found


def _parsed(item: str) -> tuple[str, str]:
    name, equals, address = item.partition("=")
    if name not in MEMBERS or not equals or ":" not in address:
        raise InvalidRequestError.of("--address", f"must be SERVICE=HOST:PORT with {', '.join(MEMBERS)}; got {item!r}")
    return name, address
