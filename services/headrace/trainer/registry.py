"""Which releases exist, and which one each track serves: in SQL, through SQLAlchemy.

`migrations/` makes the tables; `open_registry` brings any database up to date.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, BigInteger, Engine, String, delete, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from headrace.runtime.database import AnyNumbers, migrate, open_engine
from headrace.runtime.errors import NotFoundError, UnavailableError

MIGRATIONS = Path(__file__).parent / "migrations"
STABLE = "stable"
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
class ServingPlan:
    """Which release the stable track serves; None before the first. Act on growing sequences only."""

    sequence: int
    stable: Release | None


class Base(DeclarativeBase):
    """The tables of the registry."""


class ReleaseRow(Base):
    """One release."""

    __tablename__ = "releases"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent: Mapped[str] = mapped_column(String(64))
    lineage: Mapped[str] = mapped_column(String(64))
    space: Mapped[str] = mapped_column(String(64))
    dimension: Mapped[int]
    delta_sequence: Mapped[int] = mapped_column(BigInteger)
    log_offset: Mapped[int] = mapped_column(BigInteger)
    feature_schema: Mapped[str] = mapped_column(String(64))
    parts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    metrics: Mapped[dict[str, float]] = mapped_column(AnyNumbers)
    create_time_us: Mapped[int] = mapped_column(BigInteger)
    checksum: Mapped[str] = mapped_column(String(64))


class TrackRow(Base):
    """What a track serves."""

    __tablename__ = "serving_plan"

    track: Mapped[str] = mapped_column(String(16), primary_key=True)
    release_number: Mapped[int]
    sequence: Mapped[int] = mapped_column(BigInteger)


class Registry:
    """Releases and the serving plan. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        self._engine.dispose()

    def add(self, release: Release) -> ServingPlan:
        """Registers a release and makes it the stable one, both or neither; the new plan."""
        with Session(self._engine) as session, session.begin():
            session.add(_row(release))
            track = session.get(TrackRow, STABLE)
            sequence = 1 + (track.sequence if track else 0)
            session.merge(TrackRow(track=STABLE, release_number=release.number, sequence=sequence))
        return ServingPlan(sequence, release)

    def plan(self) -> ServingPlan:
        with Session(self._engine) as session:
            track = session.get(TrackRow, STABLE)
            if track is None:
                return ServingPlan(0, None)
            row = session.get_one(ReleaseRow, track.release_number)
            return ServingPlan(track.sequence, _release(row))

    def release(self, name: str) -> Release:
        """NotFoundError: no such release."""
        with Session(self._engine) as session:
            row = session.get(ReleaseRow, number_of(name))
            if row is None:
                raise NotFoundError(f"no release {name!r}")
            return _release(row)

    def newest_number(self) -> int:
        """0 before the first."""
        releases = self.releases(1)
        return releases[0].number if releases else 0

    def releases(self, limit: int, before: int = 0) -> list[Release]:
        """Newest first; those with a number below `before`, unless it is 0."""
        query = select(ReleaseRow).order_by(ReleaseRow.number.desc()).limit(limit)
        if before:
            query = query.where(ReleaseRow.number < before)
        with Session(self._engine) as session:
            return [_release(row) for row in session.scalars(query)]

    def forget_beyond(self, keep: int) -> Sequence[str]:
        """Drops all but the newest `keep` releases and what is served; the names that went."""
        with Session(self._engine) as session, session.begin():
            numbers = session.scalars(select(ReleaseRow.number).order_by(ReleaseRow.number.desc())).all()
            served = set(session.scalars(select(TrackRow.release_number)))
            gone = [number for number in numbers[keep:] if number not in served]
            session.execute(delete(ReleaseRow).where(ReleaseRow.number.in_(gone)))
        return [name_of(number) for number in gone]

    def forget_spaces(self, spaces: Collection[str]) -> Sequence[str]:
        """Drops all releases that name one of `spaces`, but what is served; the names that went."""
        query = select(ReleaseRow.number).where(ReleaseRow.space.in_(spaces))
        with Session(self._engine) as session, session.begin():
            served = set(session.scalars(select(TrackRow.release_number)))
            gone = [number for number in session.scalars(query) if number not in served]
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
    )


def _release(row: ReleaseRow) -> Release:
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
    )
