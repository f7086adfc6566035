"""Which releases exist, and which one each track serves: in SQL, through SQLAlchemy.

`migrations/` makes the tables; `open_registry` brings any database up to date.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, Select, delete, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, aliased

from headrace.runtime.database import migrate, open_engine
from headrace.runtime.errors import NotFoundError, UnavailableError
from headrace.trainer.plan_rows import (
    PlanChange,
    change_plan,
    locked_plan,
    needed_releases,
    next_number,
    predecessor_of,
)
from headrace.trainer.tables import PlanRow, ReleaseRow

MIGRATIONS = Path(__file__).parent / "migrations"
RELEASE, ROLLOUT = "release", "rollout"
_VARIABLE = "HEADRACE_TRAINER_REGISTRY_URL"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a release."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Release:
    """An immutable manifest: everything that belongs together."""

    name: str
    parent: str
    lineage: str
    space: str
    dimension: int
    # vectors up to this sequence belong to the towers of this release
    delta_sequence: int
    # learned from every record up to here
    log_offset: int
    feature_schema: str
    parts: tuple[Part, ...]
    metrics: dict[str, float]
    create_time_us: int
    # SHA-256 of the manifest's own bytes
    checksum: str
    # the learner's, over what a ranker goes by; empty: learners of this suite sign nothing
    signature: str = ""

    @property
    def number(self) -> int:
        return number_of(self.name)

    def part(self, name: str) -> Part:
        """NotFoundError: no such part."""
        for part in self.parts:
            if part.name == name:
                return part
        raise NotFoundError(f"{self.name} has no part {name!r}, only {', '.join(p.name for p in self.parts)}")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who is answered by the canary track: of 10,000 people so many, divided by the rollout's salt."""

    rollout: str
    salt: str
    share_bp: int


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Which release each track serves, and to whom; no stable one before the first. Act on growing sequences only."""

    sequence: int
    stable: Release | None
    canary: Release | None = None
    shadow: Release | None = None
    assignment: Assignment | None = None
    # why increments do not begin by themselves; empty: they do
    hold: str = ""


class Registry:
    """Releases and the serving plan. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """Where the tables are: for the parts of the trainer that keep their rows beside the releases."""
        return self._engine

    def reserve_number(self) -> int:
        """The number of a release to be: nobody else gets it, also when it is never used."""
        with Session(self._engine) as session, session.begin():
            return next_number(session, RELEASE)

    def add(self, release: Release) -> None:
        """Registers a release, which serves nobody by that: a rollout decides about it."""
        with Session(self._engine) as session, session.begin():
            session.add(_row(release))

    def change_plan(self, change: PlanChange) -> ServingPlan:
        """The plan after a change; the next one of its sequence if anything differs."""
        with Session(self._engine) as session, session.begin():
            change_plan(session, change)
        return self.plan()

    def plan(self) -> ServingPlan:
        """The plan as it stands: all of it as of one moment."""
        stable, canary, shadow = aliased(ReleaseRow), aliased(ReleaseRow), aliased(ReleaseRow)
        # one statement, so that no release goes between the plan and what it names
        query = (
            select(PlanRow, stable, canary, shadow)
            .outerjoin(stable, stable.number == PlanRow.stable)
            .outerjoin(canary, canary.number == PlanRow.canary)
            .outerjoin(shadow, shadow.number == PlanRow.shadow)
        )
        with Session(self._engine) as session:
            found = session.execute(query).first()
            if found is None:
                return ServingPlan(0, None)
            row, *tracks = found
            assignment = Assignment(row.rollout, row.salt, row.share_bp) if row.rollout else None
            served, tried, shown = (release_of(track) if track else None for track in tracks)
            return ServingPlan(row.sequence, served, tried, shown, assignment, row.hold)

    def plan_sequence(self) -> int:
        """The sequence of the plan as it stands; 0 before the first."""
        with Session(self._engine) as session:
            return session.scalar(select(PlanRow.sequence)) or 0

    def release(self, name: str) -> Release:
        """NotFoundError: no such release."""
        with Session(self._engine) as session:
            row = session.get(ReleaseRow, number_of(name))
            if row is None:
                raise NotFoundError(f"no release {name!r}")
            return release_of(row)

    def predecessor(self, stable: int) -> Release | None:
        """What served when a release was rolled out, if it is kept still."""
        with Session(self._engine) as session:
            row = session.get(ReleaseRow, predecessor_of(session, stable))
            return release_of(row) if row else None

    def newest_number(self) -> int:
        """0 before the first."""
        releases = self.releases(1)
        return releases[0].number if releases else 0

    def newest_of(self, lineage: str) -> Release | None:
        """The newest release of a lineage."""
        query = select(ReleaseRow).where(ReleaseRow.lineage == lineage).order_by(ReleaseRow.number.desc()).limit(1)
        with Session(self._engine) as session:
            row = session.scalars(query).first()
            return release_of(row) if row else None

    def releases(self, limit: int, before: int = 0) -> list[Release]:
        """Newest first; those with a number below `before`, unless it is 0."""
        query = select(ReleaseRow).order_by(ReleaseRow.number.desc()).limit(limit)
        if before:
            query = query.where(ReleaseRow.number < before)
        with Session(self._engine) as session:
            return [release_of(row) for row in session.scalars(query)]

    def forget_beyond(self, keep: int, lineage: str) -> Sequence[str]:
        """Drops all but the newest `keep` releases of a lineage and what is needed; the names that went."""
        query = select(ReleaseRow.number).where(ReleaseRow.lineage == lineage).order_by(ReleaseRow.number.desc())
        return self._forget(query.offset(keep))

    def forget_spaces(self, spaces: Collection[str]) -> Sequence[str]:
        """Drops all releases that name one of `spaces`, but what is needed; the names that went."""
        return self._forget(select(ReleaseRow.number).where(ReleaseRow.space.in_(spaces)))

    def _forget(self, query: Select[int]) -> Sequence[str]:
        with Session(self._engine) as session, session.begin():
            # no rollout begins with a release that is about to go
            locked_plan(session)
            needed = needed_releases(session)
            gone = [number for number in session.scalars(query) if number not in needed]
            session.execute(delete(ReleaseRow).where(ReleaseRow.number.in_(gone)))
        return [name_of(number) for number in gone]

    def spaces(self) -> set[str]:
        """Every space that a release names."""
        with Session(self._engine) as session:
            return set(session.scalars(select(ReleaseRow.space).distinct()))


def registry_url(url: str, folder: Path) -> str:
    """The SQLAlchemy URL of the registry; an empty one means a SQLite file in `folder`."""
    return url or f"sqlite:///{(folder / 'registry.db').absolute()}"


def open_registry(url: str) -> Registry:
    """The registry at an SQLAlchemy URL of SQLite or PostgreSQL, its tables brought up to date."""
    engine = open_engine(url, _VARIABLE)
    try:
        with engine.begin() as connection:
            migrate(connection, MIGRATIONS)
    except OperationalError as error:
        raise UnavailableError(f"{_VARIABLE}: the registry's database: {error.orig}") from error
    return Registry(engine)


def name_of(number: int) -> str:
    """`r-000042`."""
    return f"r-{number:06d}"


def number_of(name: str) -> int:
    """NotFoundError when it is no name of a release."""
    prefix, _, digits = name.partition("-")
    if prefix != "r" or not digits.isdecimal() or not digits.isascii() or name_of(int(digits)) != name:
        raise NotFoundError(f"no release {name!r}")
    return int(digits)


def _row(release: Release) -> ReleaseRow:
    return ReleaseRow(
        number=release.number,
        parent=release.parent,
        lineage=release.lineage,
        space=release.space,
        dimension=release.dimension,
        delta_sequence=release.delta_sequence,
        log_offset=release.log_offset,
        feature_schema=release.feature_schema,
        parts=[{"name": p.name, "sha256": p.sha256, "size_bytes": p.size_bytes} for p in release.parts],
        metrics=release.metrics,
        create_time_us=release.create_time_us,
        checksum=release.checksum,
        signature=release.signature,
    )


def release_of(row: ReleaseRow) -> Release:
    return Release(
        name=name_of(row.number),
        parent=row.parent,
        lineage=row.lineage,
        space=row.space,
        dimension=row.dimension,
        delta_sequence=row.delta_sequence,
        log_offset=row.log_offset,
        feature_schema=row.feature_schema,
        parts=tuple(Part(**part) for part in row.parts),
        metrics=row.metrics,
        create_time_us=row.create_time_us,
        checksum=row.checksum,
        signature=row.signature,
    )
