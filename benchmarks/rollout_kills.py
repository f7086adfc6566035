"""Do rollouts end as they should while everything under them is killed again and again?

Two registries over one SQL database, two stable rankers and a canary, all processes of their own, are killed by
SIGKILL at random moments while releases come: sound ones, ones that gate 0 or gate 1 stops, ones of another lineage,
which go to the canary; while somebody promotes, aborts, pauses and resumes at random; and while people ask for
products. At the end every rollout is over or waits for somebody, each step of its history follows from the one before
and is replayed from its evidence, the serving plan is what history leads to, as everybody was told it all along, and
nobody was answered by what was not to serve.

`python -m benchmarks.rollout_kills [--quick] [--rollouts N] [--seed N] --json PATH`
"""

from __future__ import annotations

from headrace.runtime.threads import limit_threads

limit_threads()

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arguments import base_parser
from benchmarks.postgres_server import postgres_server
from benchmarks.results import Bar, Result
from benchmarks.rollout_kills_checks import (
    Plan,
    Told,
    chain_faults,
    implied,
    lateness_s,
    phase_faults,
    plan_faults,
    replay_faults,
    webhook_faults,
)
from benchmarks.rollout_kills_play import VICTIMS, Director, Killer
from benchmarks.rollout_kills_releases import SOUND, Learner
from benchmarks.rollout_kills_stage import CANARY, REGISTRIES, RULES, STABLES, Databases, stage
from benchmarks.rollout_kills_witnesses import CALLERS, PAUSE_S, Callers, listener, watch
from headrace.trainer.analysis.policy import BudgetPolicy
from headrace.trainer.registry import ServingPlan, open_registry
from headrace.trainer.rollouts.rollout import Rollout, Transition
from headrace.trainer.rollouts.storage import Rollouts

ROLLOUTS, QUICK_ROLLOUTS = 50, 4
_SETTLE_S = 90.0
# a ranker that hears of no plan goes on with what it has; registries are both away for a few seconds at most
LATE_S = 20.0


@dataclass
class Seen:
    """Everything that anybody saw."""

    rollouts: Sequence[Rollout]
    transitions: Sequence[Transition]
    serving: Plan
    told: Sequence[Told]
    callers: Callers
    heard: Sequence[int]
    director: Director
    killed: Counter[str]
    seconds: float

    def faults(self) -> dict[str, list[str]]:
        """What is wrong, by what must hold."""
        plans, salts = implied(self.transitions), {rollout.name: rollout.salt for rollout in self.rollouts}
        late = [(answer, lateness_s(plans, salts, answer)) for answer in self.callers.answers]
        return {
            "rollouts that are neither over nor waiting for somebody": list(phase_faults(self.rollouts)),
            "steps of a history that do not follow": list(chain_faults(self.rollouts, self.transitions)),
            "decisions that their evidence does not lead to": list(replay_faults(self.transitions)),
            "plans that are not what history leads to": list(
                plan_faults(plans, self.serving, self.told, self.director.hold_ends)
            ),
            "answers by what was not to serve": [f"{answer}: {s}" for answer, s in late if s is None or s > LATE_S],
            "calls that failed": self.callers.errors,
            "webhooks missing or out of order": list(webhook_faults(self.heard, self.transitions)),
            "orders answered with what they never should be": self.director.surprises,
        }

    def latest_s(self) -> float:
        plans, salts = implied(self.transitions), {rollout.name: rollout.salt for rollout in self.rollouts}
        return max((lateness_s(plans, salts, answer) or 0.0 for answer in self.callers.answers), default=0.0)


async def played(folder: Path, databases: Databases, wanted: int, kills: int, seed: int) -> Seen:
    """Plays at least `wanted` rollouts under at least `kills` kills, and what was seen of it."""
    url = databases.registry_url or f"sqlite:///{folder / 'registry.db'}"
    with listener(seed) as hooks, closing(open_registry(url)) as registry:
        rollouts, learner, told = (
            Rollouts(registry.engine, BudgetPolicy()),
            Learner(folder, registry, seed),
            list[Told](),
        )
        # serves before anything is killed and anybody asks
        learner.publish("main", SOUND)
        async with stage(folder, databases, hooks.url) as here:
            await asyncio.gather(*(here.ready(name) for name in (*REGISTRIES, *STABLES, CANARY)))
            callers, begun = Callers(here.stables, seed), time.monotonic()
            director = Director(here, registry, rollouts, learner, seed)
            killer = Killer(here, registry, seed)
            witnesses = [asyncio.create_task(watch(name, here[name].address, told)) for name in REGISTRIES]
            witnesses.append(asyncio.create_task(callers.run()))
            try:
                await _played(director, killer, wanted, kills)
                seconds = time.monotonic() - begun
                await director.settle(_SETTLE_S)
                await _heard(rollouts, hooks.heard)
            finally:
                await _cancelled(witnesses)
            history = _history(rollouts)
            return Seen(
                rollouts=rollouts.newest(len(history) + 1)[::-1],
                transitions=history,
                serving=_plan_of(registry.plan()),
                told=told,
                callers=callers,
                heard=list(hooks.heard),
                director=director,
                killed=killer.killed,
                seconds=seconds,
            )


async def _played(director: Director, killer: Killer, wanted: int, kills: int) -> None:
    def is_enough(rollouts: int) -> bool:
        return rollouts >= wanted and killer.killed.total() >= kills

    killing = asyncio.create_task(killer.run())
    directing = asyncio.create_task(director.run(is_enough))
    try:
        await asyncio.wait((killing, directing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancelled([killing, directing])
    await killer.all_back()


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Ends tasks that have no end; what one of them failed by is raised."""
    for task in tasks:
        task.cancel()
    for task in (await asyncio.wait(tasks))[0]:
        if not task.cancelled():
            task.result()


async def _heard(rollouts: Rollouts, heard: Sequence[int]) -> None:
    """Returns when the listener was told everything, or when the time is over: then a check says what is missing."""
    until = time.monotonic() + _SETTLE_S
    while time.monotonic() < until:
        if {step.number for step in await asyncio.to_thread(_history, rollouts)} <= set(heard):
            return
        await asyncio.sleep(0.1)


def _history(rollouts: Rollouts) -> list[Transition]:
    found: list[Transition] = []
    while more := rollouts.history(500, found[-1].number if found else 0):
        found += more
    return found


def _plan_of(plan: ServingPlan) -> Plan:
    stable, canary, shadow = (each.name if each else "" for each in (plan.stable, plan.canary, plan.shadow))
    assignment = plan.assignment
    return Plan(
        plan.sequence,
        stable,
        canary,
        shadow,
        assignment.rollout if assignment else "",
        assignment.share_bp if assignment else 0,
    )


def run(wanted: int, seed: int, *, is_quick: bool) -> Result:
    """Everything, with bars; one kill a rollout, or more."""
    with tempfile.TemporaryDirectory() as name, nullcontext() if is_quick else postgres_server() as server:
        databases = Databases(server.new_database(), server.new_database()) if server else Databases()
        seen = asyncio.run(played(Path(name), databases, wanted, wanted, seed))
    return _result(seen, wanted, seed, "SQLite" if is_quick else "PostgreSQL")


def _result(seen: Seen, wanted: int, seed: int, database: str) -> Result:
    faults, tracks = seen.faults(), seen.callers.tracks()
    for what, found in faults.items():
        print(f"{len(found)} {what}", *found[:20], sep="\n  ", flush=True)
    row = {
        "data": database,
        "method": "SIGKILL at random moments",
        "seconds": round(seen.seconds, 1),
        "rollouts": len(seen.rollouts),
        "phases": dict(Counter(rollout.phase.value for rollout in seen.rollouts)),
        "kinds": dict(Counter(f"{rollout.kind} to {rollout.track}" for rollout in seen.rollouts)),
        "transitions": len(seen.transitions),
        "transitions_to": dict(Counter(step.to_phase.value for step in seen.transitions)),
        "orders": dict(seen.director.orders),
        "kills": seen.killed.total(),
        "kills_of": {victim: seen.killed[victim] for victim in VICTIMS},
        "plans_told": len(seen.told),
        "answers": len(seen.callers.answers),
        "answers_by_canary": tracks[CANARY],
        "answers_without_release": seen.callers.without_release,
        "latest_answer_by_the_release_before_s": round(seen.latest_s(), 2),
        "webhooks_told_again": len(seen.heard) - len(set(seen.heard)),
    }
    bars = [
        Bar.at_least("rollouts", wanted, len(seen.rollouts)),
        Bar.at_least("kills", wanted, seen.killed.total()),
        *(Bar.at_most(what, 0, len(found)) for what, found in faults.items()),
    ]
    settings = {"rules": RULES, "callers": CALLERS, "pause_s": PAUSE_S, "late_s": LATE_S}
    return Result("rollout_kills", settings, [seed], [row], bars)


def main() -> None:
    parser = base_parser(__doc__, f"{QUICK_ROLLOUTS} rollouts over SQLite")
    parser.add_argument("--rollouts", type=int, default=None, help=f"how many; {ROLLOUTS} unless --quick")
    arguments = parser.parse_args()
    wanted = arguments.rollouts or (QUICK_ROLLOUTS if arguments.quick else ROLLOUTS)
    run(wanted, arguments.seed, is_quick=arguments.quick).write(arguments.json)


if __name__ == "__main__":
    main()
