"""The serving plan in SQL: read and changed inside a transaction of the caller's, so that both may go with more."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sqlalchemy import select
from sqlalchemy.orm import Session

from headrace.model.arms import STABLE
from headrace.runtime.database import hold
from headrace.trainer.rollouts.phases import TERMINAL
from headrace.trainer.tables import CounterRow, PlanRow, RolloutRow

_LOCK = "serving plan"


@dataclass(frozen=True, slots=True)
class PlanChange:
    """What is to be different; None leaves a field as it is. Releases by number, 0 for none."""

    stable: int | None = None
    canary: int | None = None
    shadow: int | None = None
    rollout: str | None = None
    salt: str | None = None
    share_bp: int | None = None
    hold: str | None = None


NO_CHANGE = PlanChange()


def locked_plan(session: Session) -> PlanRow:
    """The plan's row, which nobody else changes until the transaction ends."""
    hold(session.connection(), _LOCK)
    row = session.get(PlanRow, 1, populate_existing=True)
    if row is None:
        row = PlanRow(id=1, sequence=0, stable=0, canary=0, shadow=0, rollout="", salt="", share_bp=0, hold="")
        session.add(row)
    return row


def change_plan(session: Session, change: PlanChange) -> int:
    """Writes what differs, as the next plan of the one sequence; the sequence then."""
    row = locked_plan(session)
    wanted = {field.name: getattr(change, field.name) for field in fields(change)}
    differing = {name: value for name, value in wanted.items() if value is not None and value != getattr(row, name)}
    for name, value in differing.items():
        setattr(row, name, value)
    if differing:
        row.sequence += 1
    return row.sequence


def next_number(session: Session, counter: str) -> int:
    """The next number of a counter; no two callers get the same."""
    hold(session.connection(), f"counter {counter}")
    row = session.get(CounterRow, counter, populate_existing=True)
    if row is None:
        row = CounterRow(name=counter, value=0)
        session.add(row)
    row.value += 1
    return row.value


def needed_releases(session: Session) -> set[int]:
    """Releases that the plan names, that a rollout which is not over may need, and what an undo goes back to."""
    needed: set[int] = set()
    plan = session.get(PlanRow, 1)
    if plan is not None:
        needed |= {plan.stable, plan.canary, plan.shadow}
        if before := predecessor_of(session, plan.stable):
            needed.add(before)
    running = select(RolloutRow.release_number, RolloutRow.baseline_number).where(RolloutRow.phase.not_in(TERMINAL))
    for release, baseline in session.execute(running):
        needed |= {release, baseline}
    return needed - {0}


def predecessor_of(session: Session, stable: int) -> int:
    """What served when `stable` was rolled out; 0: nothing did, or nobody knows any more."""
    query = (
        select(RolloutRow.baseline_number)
        .where(RolloutRow.release_number == stable, RolloutRow.track == STABLE)
        .order_by(RolloutRow.number.desc())
        .limit(1)
    )
    return session.scalar(query) or 0
