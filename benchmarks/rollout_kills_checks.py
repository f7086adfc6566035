"""What must hold of rollouts whatever was killed: each check answers what is wrong, nothing where all is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from headrace.model.arms import CANARY, arm_of
from headrace.runtime.errors import HeadraceError
from headrace.trainer.rollouts.decisions import replay
from headrace.trainer.rollouts.evidence import LINEAGE, Record
from headrace.trainer.rollouts.phases import TERMINAL, Phase, may_follow
from headrace.trainer.rollouts.rollout import Rollout, Transition, rollout_name

# what may be left standing: somebody has to say how it goes on
WAITING = (Phase.PAUSED, Phase.INCONCLUSIVE)


@dataclass(frozen=True)
class Plan:
    """A serving plan: releases by name, empty for none."""

    sequence: int = 0
    stable: str = ""
    canary: str = ""
    shadow: str = ""
    rollout: str = ""
    share_bp: int = 0


@dataclass(frozen=True)
class Told:
    """A plan as a registry told it to one who watches."""

    registry: str
    plan: Plan


@dataclass(frozen=True)
class Answer:
    """What a caller was answered by."""

    begin_us: int
    end_us: int
    key: str
    track: str
    release: str


def phase_faults(rollouts: Sequence[Rollout]) -> Iterator[str]:
    """Rollouts that are neither over nor waiting for somebody."""
    for rollout in rollouts:
        if rollout.phase not in (*TERMINAL, *WAITING):
            yield f"{rollout.name} is {rollout.phase} still: {rollout.reason}"


def chain_faults(rollouts: Sequence[Rollout], transitions: Sequence[Transition]) -> Iterator[str]:
    """Steps that do not join, that no law allows, or that are missing at the end."""
    at: dict[int, Phase] = {}
    for step in transitions:
        before, name = at.get(step.rollout), f"{rollout_name(step.rollout)}, transition {step.number}"
        if before != step.from_phase:
            yield f"{name}: from {step.from_phase}, where it was {before}"
        if step.from_phase is not None and not may_follow(step.to_phase, step.from_phase):
            yield f"{name}: {step.to_phase} may not follow {step.from_phase}"
        at[step.rollout] = step.to_phase
    for rollout in rollouts:
        if at.get(rollout.number) != rollout.phase:
            yield f"{rollout.name} is {rollout.phase}, its history ends at {at.get(rollout.number)}"
    if missing := at.keys() - {rollout.number for rollout in rollouts}:
        yield f"a history without its rollout: {sorted(missing)}"


def replay_faults(transitions: Sequence[Transition]) -> Iterator[str]:
    """Decisions that the evidence kept with them does not lead to."""
    for step in transitions:
        try:
            if replay(step.evidence):
                continue
            reason = "another decision"
        except HeadraceError as error:
            reason = str(error)
        yield f"transition {step.number} to {step.to_phase} of {rollout_name(step.rollout)}: {reason}"


def implied(transitions: Sequence[Transition]) -> list[tuple[int, Plan]]:
    """The plans that history leads to, each with the time of its decision, from the empty one on."""
    plans = [(0, Plan())]
    for step in transitions:
        before = plans[-1][1]
        after = _after(step, before)
        if after != before:
            plans.append((step.time_us, replace(after, sequence=before.sequence + 1)))
    return plans


def _after(step: Transition, plan: Plan) -> Plan:
    """Written from what the documents say, not from the code that it checks."""
    record = Record.read(step.evidence)
    evidence, decision = record.evidence, record.decision
    release, is_lineage, is_fed = evidence.release, evidence.kind == LINEAGE, evidence.track == CANARY
    unshadowed = replace(plan, shadow="" if plan.shadow == release else plan.shadow)
    empty = replace(unshadowed, canary="", rollout="", share_bp=0) if is_lineage else unshadowed
    match step.to_phase:
        case Phase.SHADOWING:
            # the canary track takes in what is to come to it, with nobody in its arm
            return replace(plan, shadow=release, canary=release if is_lineage else plan.canary)
        case Phase.PROMOTED if step.from_phase is None:
            # an undo to what no rollout had brought
            return replace(plan, stable=release)
        case Phase.CANARY:
            share_bp = evidence.steps_bp[decision.step]
            return replace(unshadowed, canary=release, rollout=rollout_name(step.rollout), share_bp=share_bp)
        case Phase.PROMOTING:
            return replace(unshadowed, canary=release) if is_fed else replace(empty, stable=release)
        case Phase.ROLLING_BACK if is_fed:
            return replace(unshadowed, canary=evidence.baseline if plan.canary == release else plan.canary)
        case Phase.ROLLING_BACK:
            before = decision.target or evidence.baseline
            return replace(empty, stable=before if plan.stable == release else plan.stable)
        case Phase.INCONCLUSIVE | Phase.SUPERSEDED:
            return empty
    return plan


def plan_faults(
    plans: Sequence[tuple[int, Plan]], serving: Plan, told: Sequence[Told], hold_ends: int = 0
) -> Iterator[str]:
    """Where the plan is not what history leads to, at the end or as anybody was told it; where it went backwards.

    `hold_ends`: so many numbers of the sequence at most went by with no step of a rollout.
    """
    by_sequence = [replace(plan, sequence=0) for _, plan in plans]

    def is_implied(plan: Plan) -> bool:
        places = range(max(0, plan.sequence - hold_ends), min(len(plans), plan.sequence + 1))
        return replace(plan, sequence=0) in [by_sequence[place] for place in places]

    if replace(serving, sequence=0) != by_sequence[-1] or not is_implied(serving):
        yield f"the plan is {serving}, history leads to {plans[-1][1]}"
    newest: dict[str, int] = {}
    for each in told:
        if each.plan.sequence < newest.get(each.registry, 0):
            yield f"{each.registry} told plan {each.plan.sequence} after {newest[each.registry]}"
        newest[each.registry] = each.plan.sequence
        if not is_implied(each.plan):
            yield f"{each.registry} told {each.plan}, which history does not lead to"


def lateness_s(plans: Sequence[tuple[int, Plan]], salts: Mapping[str, str], answer: Answer) -> float | None:
    """For how long the answer's release had not been on its track any more; None: it never was, for this person."""
    least: float | None = None
    for place, (since_us, plan) in enumerate(plans):
        if since_us > answer.end_us:
            break
        if not _allows(plan, salts, answer):
            continue
        until_us = plans[place + 1][0] if place + 1 < len(plans) else answer.begin_us
        late_s = max(0.0, (answer.begin_us - until_us) / 1e6)
        least = late_s if least is None else min(least, late_s)
    return least


def _allows(plan: Plan, salts: Mapping[str, str], answer: Answer) -> bool:
    if answer.track != CANARY:
        return plan.stable == answer.release
    if plan.canary != answer.release or not plan.rollout:
        return False
    return arm_of(salts[plan.rollout], plan.share_bp, answer.key) == CANARY


def webhook_faults(heard: Sequence[int], transitions: Sequence[Transition]) -> Iterator[str]:
    """Transitions that nobody was told of, or not in their order; being told twice is allowed."""
    first = list(dict.fromkeys(heard))
    there = [step.number for step in transitions]
    if missing := set(there) - set(first):
        yield f"never told of: {sorted(missing)}"
    if unknown := set(first) - set(there):
        yield f"told of what history does not hold: {sorted(unknown)}"
    if first != sorted(first):
        yield f"told out of order: {[number for place, number in enumerate(first) if sorted(first)[place] != number]}"
