"""The registry's tables: releases, the serving plan, rollouts with their history, and what deciding needs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from headrace.runtime.database import AnyNumbers

# SQLite numbers rows by themselves only where their column is an INTEGER
_RowNumber = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    """The tables of the registry."""


class CounterRow(Base):
    """A number that only grows: of releases, of plans, of rollouts."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


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
    signature: Mapped[str] = mapped_column(String(128), server_default="")


class PlanRow(Base):
    """The serving plan: one row, so that whoever reads it reads all of it as of one moment."""

    __tablename__ = "current_plan"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sequence: Mapped[int] = mapped_column(BigInteger)
    # numbers of releases; 0: none
    stable: Mapped[int]
    canary: Mapped[int]
    shadow: Mapped[int]
    # who is answered by the canary track; an empty rollout: nobody
    rollout: Mapped[str] = mapped_column(String(32))
    salt: Mapped[str] = mapped_column(String(64))
    share_bp: Mapped[int]
    # why increments do not begin by themselves; empty: they do
    hold: Mapped[str] = mapped_column(Text)


class RolloutRow(Base):
    """One rollout as it stands."""

    __tablename__ = "rollouts"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    # where it ends when all goes well: stable, or the canary slot of the rollout `feeds`
    track: Mapped[str] = mapped_column(String(16))
    feeds: Mapped[int]
    phase: Mapped[str] = mapped_column(String(16), index=True)
    resumes_in: Mapped[str] = mapped_column(String(16))
    release_number: Mapped[int]
    baseline_number: Mapped[int]
    lineage: Mapped[str] = mapped_column(String(64))
    salt: Mapped[str] = mapped_column(String(64))
    # what it may err by, taken out of the budget of the day (since 1970) on which it began
    alpha: Mapped[float] = mapped_column(Double)
    alpha_day: Mapped[int] = mapped_column(index=True)
    share_bp: Mapped[int]
    step: Mapped[int]
    # when the step began: evidence counts from here
    step_time_us: Mapped[int] = mapped_column(BigInteger)
    steps_bp: Mapped[list[int]] = mapped_column(JSON)
    reason: Mapped[str] = mapped_column(Text)
    gates: Mapped[list[dict[str, Any]]] = mapped_column(AnyNumbers)
    comparisons: Mapped[list[dict[str, Any]]] = mapped_column(AnyNumbers)
    # the rankers' sums at moments that later ones are held against
    marks: Mapped[dict[str, Any]] = mapped_column(JSON)
    create_time_us: Mapped[int] = mapped_column(BigInteger)
    phase_time_us: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)


class TransitionRow(Base):
    """One step of one rollout, with what it was decided from."""

    __tablename__ = "rollout_transitions"

    number: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    rollout_number: Mapped[int] = mapped_column(index=True)
    from_phase: Mapped[str] = mapped_column(String(16))
    to_phase: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[str] = mapped_column(Text)
    time_us: Mapped[int] = mapped_column(BigInteger)


class LeaseRow(Base):
    """Who decides, and until when unless it says so again."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    until_us: Mapped[int] = mapped_column(BigInteger)


class RankerReportRow(Base):
    """The newest report of one ranker process; a process that was started again has another row."""

    __tablename__ = "ranker_reports"

    ranker: Mapped[str] = mapped_column(String(200), primary_key=True)
    start_us: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    received_us: Mapped[int] = mapped_column(BigInteger)
    report: Mapped[dict[str, Any]] = mapped_column(AnyNumbers)


class WebhookRow(Base):
    """Up to which transition somebody was told."""

    __tablename__ = "webhook_cursors"

    # SHA-256 of its URL, which may hold a secret
    url: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
