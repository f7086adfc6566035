"""Rollouts in SQL: each step is compared and swapped, and written with its evidence and the plan that goes with it."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine, ScalarResult, Select, delete, func, select, update
from sqlalchemy.orm import Session

from headrace.model.arms import CANARY
from headrace.runtime.errors import HeadraceError, NotFoundError
from headrace.trainer.analysis.error_budget import CANARY as CANARY_PURSE
from headrace.trainer.analysis.error_budget import INCREMENT as INCREMENT_PURSE
from headrace.trainer.analysis.error_budget import ErrorBudget
from headrace.trainer.analysis.policy import BudgetPolicy
from headrace.trainer.plan_rows import NO_CHANGE, PlanChange, change_plan, locked_plan, next_number
from headrace.trainer.rollouts.beginning import Beginning
from headrace.trainer.rollouts.effects import effect
from headrace.trainer.rollouts.evidence import INCREMENT, LINEAGE, Decision, Record
from headrace.trainer.rollouts.phases import TERMINAL, Phase
from headrace.trainer.rollouts.rollout import Rollout, Transition, rollout_name
from headrace.trainer.rollouts.rows import gates_after, rollout_of, transition_of, transition_row
from headrace.trainer.tables import PlanRow, ReleaseRow, RolloutRow, TransitionRow

CONTROLLER = "controller"
_DAY_US = 86_400_000_000
_COUNTER = "rollout"


class ConflictError(HeadraceError):
    """Somebody else moved the rollout first; look again."""


class Rollouts:
    """Reads and moves rollouts. Safe to use from several threads and processes at once."""

    def __init__(self, engine: Engine, budget: BudgetPolicy) -> None:
        self._engine = engine
        self._budget = budget

    def begin(self, beginning: Beginning, record: Record, actor: str, change: PlanChange = NO_CHANGE) -> Rollout:
        """A new rollout with its first transition and the `change` of the plan, all of it or nothing.

        ConflictError: another one has begun, or the plan has changed. NotFoundError: the release is kept no longer.
        """
        with Session(self._engine) as session, session.begin():
            # one at a time, and no release goes meanwhile
            plan = locked_plan(session)
            if session.get(ReleaseRow, beginning.release) is None:
                raise NotFoundError(f"no release {record.evidence.release!r}")
            self._check_room(session, beginning, plan)
            row = self._new_row(session, beginning, record)
            session.add(row)
            session.add(transition_row(row.number, "", record, actor))
            change_plan(session, change)
            return rollout_of(row)

    def _check_room(self, session: Session, beginning: Beginning, plan: PlanRow) -> None:
        if beginning.phase == Phase.VALIDATING and plan.stable != beginning.baseline and beginning.track != CANARY:
            raise ConflictError("another release serves by now")
        for other in _open(session):
            is_other = other.kind == beginning.kind == LINEAGE
            takes_over = other.is_taking_over and beginning.kind == INCREMENT
            if is_other or takes_over or other.holds_shadow:
                raise ConflictError(f"{other.name} is {other.phase}")

    def _new_row(self, session: Session, beginning: Beginning, record: Record) -> RolloutRow:
        number, now_us = next_number(session, _COUNTER), record.evidence.now_us
        day = now_us // _DAY_US
        return RolloutRow(
            number=number,
            kind=beginning.kind,
            track=beginning.track,
            feeds=beginning.feeds,
            phase=beginning.phase,
            resumes_in="",
            release_number=beginning.release,
            baseline_number=beginning.baseline,
            lineage=beginning.lineage,
            salt=secrets.token_hex(8),
            alpha=self._allotted(session, day, beginning.kind),
            alpha_day=day,
            share_bp=0,
            step=0,
            step_time_us=now_us,
            steps_bp=list(beginning.steps_bp),
            reason=record.decision.reason,
            gates=[],
            comparisons=[],
            marks={},
            create_time_us=now_us,
            phase_time_us=now_us,
            version=1,
        )

    def _allotted(self, session: Session, day: int, kind: str) -> float:
        query = (
            select(RolloutRow.kind, func.sum(RolloutRow.alpha))
            .where(RolloutRow.alpha_day == day)
            .group_by(RolloutRow.kind)
        )
        spent = {kind: float(alpha) for kind, alpha in session.execute(query)}
        budget = ErrorBudget(day, spent.get(LINEAGE, 0.0), spent.get(INCREMENT, 0.0))
        purse = CANARY_PURSE if kind == LINEAGE else INCREMENT_PURSE
        return budget.allotted(day, purse, self._budget)[0]

    def move(self, rollout: Rollout, record: Record, actor: str, marks: dict[str, Any], hold: str = "") -> Rollout:
        """The rollout after a decision: the swap, its transition and the plan, all of it or nothing.

        `hold`: why increments are not to begin by themselves any more. ConflictError: it is not any more as `rollout`
        says.
        """
        with Session(self._engine) as session, session.begin():
            plan = locked_plan(session)
            self._swap(session, rollout, record, marks, plan.stable)
            _check_ground(rollout, record, plan)
            target = int(record.decision.target.removeprefix("r-") or 0)
            change = effect(rollout, record.decision, plan, target)
            if hold:
                plan.hold = hold
            change_plan(session, change)
            session.add(transition_row(rollout.number, rollout.phase, record, actor))
            if rollout.track == CANARY:
                _feed(session, rollout, record.decision.to_phase)
            return rollout_of(session.get_one(RolloutRow, rollout.number, populate_existing=True))

    def _swap(self, session: Session, rollout: Rollout, record: Record, marks: dict[str, Any], stable: int) -> None:
        decision, now_us = record.decision, record.evidence.now_us
        changed: dict[str, Any] = {
            "phase": decision.to_phase,
            "resumes_in": decision.resumes_in or "",
            "reason": decision.reason,
            "gates": gates_after(rollout, decision),
            "marks": rollout.marks | marks,
            "phase_time_us": now_us,
            "version": rollout.version + 1,
        }
        if decision.comparisons:
            changed["comparisons"] = [asdict(each) for each in decision.comparisons]
        if decision.to_phase == Phase.CANARY and rollout.phase != Phase.PAUSED:
            changed |= {"step": decision.step, "step_time_us": now_us, "share_bp": rollout.steps_bp[decision.step]}
        if decision.to_phase == Phase.PROMOTING and rollout.track != CANARY and stable != rollout.release:
            # what it takes the place of is what an undo goes back to
            changed["baseline_number"] = stable
        if decision.to_phase in (*TERMINAL, Phase.ROLLING_BACK, Phase.INCONCLUSIVE, Phase.PROMOTING):
            changed["share_bp"] = 0
        swap = (
            update(RolloutRow)
            .where(RolloutRow.number == rollout.number, RolloutRow.version == rollout.version)
            .values(**changed)
        )
        # of an UPDATE, which the types do not tell
        if session.execute(swap).rowcount != 1:  # type: ignore[attr-defined]
            raise ConflictError(f"{rollout.name} has moved on from version {rollout.version}")

    def note(self, rollout: Rollout, decision: Decision) -> None:
        """Keeps what is measured and waited for by now, for whoever looks; no step, so no version."""
        comparisons = [asdict(each) for each in decision.comparisons] or [asdict(c) for c in rollout.comparisons]
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(RolloutRow)
                .where(RolloutRow.number == rollout.number, RolloutRow.version == rollout.version)
                .values(reason=decision.reason, comparisons=comparisons)
            )

    def open(self) -> list[Rollout]:
        """Those that are not over, oldest first."""
        with Session(self._engine) as session:
            return _open(session)

    def get(self, number: int) -> Rollout:
        """NotFoundError: no such rollout."""
        with Session(self._engine) as session:
            row = session.get(RolloutRow, number)
            if row is None:
                raise NotFoundError(f"no rollout {rollout_name(number)!r}")
            return rollout_of(row)

    def newest(self, limit: int, before: int = 0, *, with_increments: bool = True) -> list[Rollout]:
        """Newest first; those with a number below `before`, unless it is 0."""
        query = select(RolloutRow).order_by(RolloutRow.number.desc()).limit(limit)
        if before:
            query = query.where(RolloutRow.number < before)
        if not with_increments:
            query = query.where(RolloutRow.kind == LINEAGE)
        return self._all(query)

    def of_release(self, release: int, phases: Collection[Phase]) -> Rollout | None:
        """The newest rollout to everybody of a release, among those in `phases`."""
        query = (
            select(RolloutRow)
            .where(RolloutRow.release_number == release, RolloutRow.track != CANARY, RolloutRow.phase.in_(phases))
            .order_by(RolloutRow.number.desc())
            .limit(1)
        )
        return next(iter(self._all(query)), None)

    def newest_tried(self, lineage: str) -> tuple[int, int]:
        """The newest release of a lineage that a rollout was begun for, and the newest of its rollouts; 0 for none."""
        query = select(func.max(RolloutRow.release_number), func.max(RolloutRow.number)).where(
            RolloutRow.lineage == lineage
        )
        with Session(self._engine) as session:
            release, number = session.execute(query).one()
            return release or 0, number or 0

    def history(self, limit: int, after: int = 0, rollout: int = 0) -> list[Transition]:
        """Oldest first; those with a number above `after`, of one rollout unless it is 0."""
        query = select(TransitionRow).where(TransitionRow.number > after).order_by(TransitionRow.number).limit(limit)
        if rollout:
            query = query.where(TransitionRow.rollout_number == rollout)
        with Session(self._engine) as session:
            return [transition_of(row) for row in session.scalars(query)]

    def forget_before(self, time_us: int) -> None:
        """Drops increments that were over by then, with their history, but what an undo may need."""
        with Session(self._engine) as session, session.begin():
            plan = locked_plan(session)
            old = select(RolloutRow.number).where(
                RolloutRow.kind == INCREMENT,
                RolloutRow.phase.in_(TERMINAL),
                RolloutRow.phase_time_us < time_us,
                RolloutRow.release_number != plan.stable,
            )
            numbers = session.scalars(old).all()
            session.execute(delete(TransitionRow).where(TransitionRow.rollout_number.in_(numbers)))
            session.execute(delete(RolloutRow).where(RolloutRow.number.in_(numbers)))

    def _all(self, query: Select[RolloutRow]) -> list[Rollout]:
        with Session(self._engine) as session:
            return [rollout_of(row) for row in session.scalars(query)]


def _check_ground(rollout: Rollout, record: Record, plan: PlanRow) -> None:
    """What gates found holds against one baseline only."""
    decides = record.decision.to_phase == Phase.PROMOTING and record.evidence.command is None
    if decides and rollout.kind != LINEAGE and rollout.track != CANARY and plan.stable != rollout.baseline:
        raise ConflictError(f"{rollout.name} was held against another release than serves by now")


def _open(session: Session) -> list[Rollout]:
    found: ScalarResult[RolloutRow] = session.scalars(
        select(RolloutRow).where(RolloutRow.phase.not_in(TERMINAL)).order_by(RolloutRow.number)
    )
    return [rollout_of(row) for row in found]


def _feed(session: Session, increment: Rollout, to_phase: Phase) -> None:
    """The lineage's rollout goes on with the release that its increment brings, or with the one before again."""
    row = session.get_one(RolloutRow, increment.feeds, populate_existing=True)
    if to_phase == Phase.PROMOTING:
        if row.phase != Phase.CANARY:
            raise ConflictError(f"{rollout_name(row.number)} is {row.phase}")
        row.release_number, row.version = increment.release, row.version + 1
    elif to_phase == Phase.ROLLING_BACK and row.release_number == increment.release:
        row.release_number, row.version = increment.baseline, row.version + 1
