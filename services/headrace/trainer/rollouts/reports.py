"""What rankers reported: the newest of each process, kept in SQL, so that any registry process may decide by it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Engine, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from headrace.runtime.clock import now_us
from headrace.trainer.analysis.evidence import ArmCounts, LiveShadow
from headrace.trainer.tables import RankerReportRow

log = logging.getLogger(__name__)

_FLUSH_S = 0.5
# what a process of long ago counted is still part of a canary that runs
_KEPT_US = 60 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class ArmSums:
    """Answers to people of one arm of one rollout, both empty outside of any."""

    rollout: str
    arm: str
    counts: ArmCounts


@dataclass(frozen=True, slots=True)
class ShadowSums:
    """Live requests that `release` scored beside `baseline`."""

    release: str
    baseline: str
    live: LiveShadow


@dataclass(frozen=True, slots=True)
class RankerReport:
    """Sums of one process since `start_us`; they only grow."""

    ranker: str
    start_us: int
    received_us: int
    track: str
    plan_sequence: int
    release: str
    refused_release: str = ""
    refused_reason: str = ""
    arms: tuple[ArmSums, ...] = ()
    shadow: ShadowSums | None = None

    @property
    def process(self) -> str:
        return f"{self.ranker}@{self.start_us}"


_KIND = TypeAdapter(RankerReport)


class RankerReports:
    """Takes reports without waiting; writes the newest ones every half second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._unwritten: dict[str, RankerReport] = {}
        self._lock = threading.Lock()

    def take(self, report: RankerReport) -> None:
        with self._lock:
            self._unwritten[report.process] = report

    async def run(self) -> None:
        """Writes for ever; a database that is away is tried again with what is newest then."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            try:
                await asyncio.to_thread(self.write)
            except OperationalError as error:
                log.warning("reports_not_written", extra={"reason": str(error.orig)})

    def write(self) -> None:
        """Makes what was taken known to all processes."""
        with self._lock:
            reports = list(self._unwritten.values())
        if not reports:
            return
        with self._engine.begin() as db:
            insert: Any = postgresql.insert if db.dialect.name == "postgresql" else sqlite.insert
            statement = insert(RankerReportRow.__table__)
            new = statement.excluded
            statement = statement.on_conflict_do_update(
                index_elements=["ranker", "start_us"],
                set_={"received_us": new.received_us, "report": new.report},
                where=RankerReportRow.__table__.c.received_us < new.received_us,
            )
            db.execute(statement, [_row(report) for report in sorted(reports, key=lambda report: report.process)])
        with self._lock:
            for report in reports:
                if self._unwritten.get(report.process) is report:
                    del self._unwritten[report.process]

    def all(self) -> list[RankerReport]:
        """Of every process, those that are gone too."""
        with Session(self._engine) as session:
            return [_KIND.validate_python(row) for row in session.scalars(select(RankerReportRow.report))]

    def forget_old(self) -> None:
        """Drops processes that nobody has heard of for very long."""
        with Session(self._engine) as session, session.begin():
            session.execute(delete(RankerReportRow).where(RankerReportRow.received_us < now_us() - _KEPT_US))


def shadow_sums(reports: Iterable[RankerReport], release: str, baseline: str) -> LiveShadow:
    """What all processes found of `release` beside `baseline`, together."""
    found = [
        asdict(report.shadow.live)
        for report in reports
        if report.shadow and (report.shadow.release, report.shadow.baseline) == (release, baseline)
    ]
    return LiveShadow(**{name: sum(live[name] for live in found) for name in found[0]}) if found else LiveShadow()


def arm_sums(reports: Iterable[RankerReport], rollout: str = "", arm: str = "") -> dict[str, ArmCounts]:
    """By process: its answers to people of an arm of a rollout; of all people when no rollout is named."""
    return {
        report.process: _added(
            sums.counts for sums in report.arms if not rollout or (sums.rollout, sums.arm) == (rollout, arm)
        )
        for report in reports
    }


def mark(sums: dict[str, ArmCounts]) -> dict[str, list[int]]:
    """The sums as they stand, to be held against later ones."""
    return {process: _columns(counts) for process, counts in sums.items()}


def since(sums: dict[str, ArmCounts], marked: dict[str, list[int]]) -> ArmCounts:
    """What came after the mark. A process that the mark does not know has begun since then."""
    return _added(_difference(counts, marked.get(process)) for process, counts in sums.items())


def until(marked: dict[str, list[int]]) -> ArmCounts:
    """What had come until the mark."""
    return _added(_counts(columns) for columns in marked.values())


def _difference(counts: ArmCounts, before: list[int] | None) -> ArmCounts:
    if before is None:
        return counts
    # a ranker that counts no longer what it did count for has nothing to add
    return _counts([max(0, now - then) for now, then in zip(_columns(counts), before, strict=True)])


def _added(parts: Iterable[ArmCounts]) -> ArmCounts:
    columns = [_columns(part) for part in parts]
    return _counts([sum(column) for column in zip(*columns, strict=True)]) if columns else ArmCounts()


def _columns(counts: ArmCounts) -> list[int]:
    return [counts.answers, counts.fallbacks, counts.errors, *counts.latency]


def _counts(columns: list[int]) -> ArmCounts:
    answers, fallbacks, errors, *latency = columns
    return ArmCounts(answers=answers, fallbacks=fallbacks, errors=errors, latency=tuple(latency))


def _row(report: RankerReport) -> dict[str, Any]:
    return {
        "ranker": report.ranker,
        "start_us": report.start_us,
        "received_us": report.received_us,
        "report": asdict(report),
    }
