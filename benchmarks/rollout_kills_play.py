"""Who moves rollouts and who is in their way: releases and orders by chance, and SIGKILL at random moments."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import grpc
from sqlalchemy.orm import Session

from benchmarks.ranker_process import polled
from benchmarks.rollout_kills_releases import BROKEN, SOUND, UPSIDE_DOWN, Learner
from benchmarks.rollout_kills_stage import CANARY, REGISTRIES, SPACES, STABLES, Stage
from headrace.runtime.channels import open_channel
from headrace.trainer.registry import Registry
from headrace.trainer.rollouts.evidence import LINEAGE
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.rollout import Rollout
from headrace.trainer.rollouts.storage import Rollouts
from headrace.trainer.tables import LeaseRow
from headrace.v1 import trainer_pb2
from headrace.v1.trainer_pb2_grpc import TrainerServiceStub

if TYPE_CHECKING:
    from headrace.v1.trainer_pb2_grpc import TrainerServiceAsyncStub

VICTIMS = ("the registry that decides", "the other registry", "a stable ranker", "the canary ranker")
KINDS = (SOUND,) * 5 + (BROKEN, UPSIDE_DOWN)
_CALL_S, _DECIDER_S = 10.0, 120.0
# what an order may meet: it came too late, or to a registry that is killed just then
_REFUSALS = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class Director:
    """Lets releases be published and orders be given, and in the end what still runs come to its end."""

    def __init__(self, stage: Stage, registry: Registry, rollouts: Rollouts, learner: Learner, seed: int) -> None:
        self.orders: Counter[str] = Counter()
        # what an order was answered that it should never be
        self.surprises: list[str] = []
        # orders that let increments go on after an undo, which is no step of a rollout
        self.hold_ends = 0
        self._stage = stage
        self._registry = registry
        self._rollouts = rollouts
        self._learner = learner
        self._chance = random.Random(f"{seed}-director")

    async def run(self, is_enough: Callable[[int], bool]) -> None:
        """Goes on until it is enough; asked with the number of rollouts that there were."""
        async with open_channel(self._stage.registries) as channel:
            stub: TrainerServiceAsyncStub = TrainerServiceStub(channel)
            while not is_enough(sum(each.number for each in await asyncio.to_thread(self._rollouts.newest, 1))):
                await self._act(stub, await asyncio.to_thread(self._rollouts.open))
                await asyncio.sleep(self._chance.uniform(0.1, 0.6))

    async def settle(self, within_s: float) -> None:
        """Lets go what is paused, and returns when nothing moves by itself any more or the time is over."""
        async with open_channel(self._stage.registries) as channel:
            stub: TrainerServiceAsyncStub = TrainerServiceStub(channel)
            until = asyncio.get_running_loop().time() + within_s
            while asyncio.get_running_loop().time() < until:
                running = await asyncio.to_thread(self._rollouts.open)
                if all(each.phase == Phase.INCONCLUSIVE for each in running):
                    return
                for each in running:
                    if each.phase == Phase.PAUSED:
                        await self._order("resume", self._resume(stub, each))
                await asyncio.sleep(0.2)

    async def _act(self, stub: TrainerServiceAsyncStub, running: Sequence[Rollout]) -> None:
        if not any(each.holds_shadow for each in running):
            lineage = await asyncio.to_thread(self._lineage, running)
            await asyncio.to_thread(self._learner.publish, lineage, self._chance.choice(KINDS))
            if self._is_due(running):
                await self._begin_lineage(stub)
        if running and self._chance.random() < 0.15:
            await self._command(stub, self._chance.choice(running))
        if self._chance.random() < 0.02:
            undo = trainer_pb2.UndoRolloutRequest(actor="eve", reason="poisoned")
            await self._order("undo", lambda: stub.UndoRollout(undo, timeout=_CALL_S))
        if (await asyncio.to_thread(self._registry.plan)).hold and self._chance.random() < 0.3:
            self.hold_ends += 1
            go_on = trainer_pb2.ResumeRolloutRequest(actor="eve", reason="found it")
            await self._order("go on", lambda: stub.ResumeRollout(go_on, timeout=_CALL_S))

    def _lineage(self, running: Sequence[Rollout]) -> str:
        """The lineage that serves, or that in the canary slot."""
        stable = self._registry.plan().stable
        serving = stable.lineage if stable else "main"
        tried = [each.lineage for each in running if each.kind == LINEAGE]
        return self._chance.choice([serving, *tried])

    def _is_due(self, running: Sequence[Rollout]) -> bool:
        return self._chance.random() < (0.02 if any(each.kind == LINEAGE for each in running) else 0.6)

    async def _begin_lineage(self, stub: TrainerServiceAsyncStub) -> None:
        stable = await asyncio.to_thread(lambda: self._registry.plan().stable)
        if stable is None:
            return
        [other] = SPACES.keys() - {stable.lineage}
        release = await asyncio.to_thread(self._learner.publish, other, self._chance.choice(KINDS))
        wish = trainer_pb2.CreateRolloutRequest(
            release=release.name, supersede=self._chance.random() < 0.5, actor="eve", reason="another lineage"
        )
        await self._order("create", lambda: stub.CreateRollout(wish, timeout=_CALL_S))

    async def _command(self, stub: TrainerServiceAsyncStub, rollout: Rollout) -> None:
        if rollout.kind == LINEAGE and rollout.holds_shadow and self._chance.random() < 0.8:
            # few would come to the canary
            return
        if rollout.phase in (Phase.PAUSED, Phase.INCONCLUSIVE) and self._chance.random() < 0.6:
            await self._order("resume", self._resume(stub, rollout))
            return
        name, who = rollout.name, "eve"
        orders: dict[str, Callable[[], Awaitable[object]]] = {
            "pause": lambda: stub.PauseRollout(
                trainer_pb2.PauseRolloutRequest(rollout=name, actor=who), timeout=_CALL_S
            ),
            "abort": lambda: stub.AbortRollout(
                trainer_pb2.AbortRolloutRequest(rollout=name, actor=who), timeout=_CALL_S
            ),
            "promote": lambda: stub.PromoteRollout(
                trainer_pb2.PromoteRolloutRequest(rollout=name, actor=who), timeout=_CALL_S
            ),
        }
        order = self._chance.choice(list(orders))
        await self._order(order, orders[order])

    def _resume(self, stub: TrainerServiceAsyncStub, rollout: Rollout) -> Callable[[], Awaitable[object]]:
        request = trainer_pb2.ResumeRolloutRequest(rollout=rollout.name, actor="eve")
        return lambda: stub.ResumeRollout(request, timeout=_CALL_S)

    async def _order(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        try:
            await ask()
            self.orders[name] += 1
        except grpc.aio.AioRpcError as error:
            self.orders[f"{name}, refused"] += 1
            if error.code() not in _REFUSALS:
                self.surprises.append(f"{name}: {error.code().name}: {error.details()}")


class Killer:
    """Kills one victim after the other; each is back after a while by itself.

    One stable ranker always answers. The registries are both away now and then only: else nothing would move at all.
    """

    def __init__(self, stage: Stage, registry: Registry, seed: int) -> None:
        self.killed: Counter[str] = Counter()
        self._stage = stage
        self._registry = registry
        self._chance = random.Random(f"{seed}-killer")
        self._revivals: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Kills for ever."""
        while True:
            victims = list(VICTIMS)
            self._chance.shuffle(victims)
            for victim in victims:
                await asyncio.sleep(self._chance.uniform(0.2, 2.5))
                name = await self._name(victim)
                await self._stage[name].process.kill()
                self.killed[victim] += 1
                self._revivals.add(asyncio.create_task(self._revive(name, self._chance.uniform(0.0, 1.5))))

    async def all_back(self) -> None:
        """Returns when everything that was killed is started again."""
        await asyncio.gather(*self._revivals)

    async def _name(self, victim: str) -> str:
        """Who it is, once it runs."""
        if victim == "the canary ranker":
            await self._stage.ready(CANARY)
            return CANARY
        if victim == "a stable ranker":
            name = self._chance.choice(STABLES)
            await self._stage.ready(_other(STABLES, name))
            return await self._running(name)
        decider = await self._decider()
        other = _other(REGISTRIES, decider)
        name, rest = (decider, other) if victim == "the registry that decides" else (other, decider)
        if self._chance.random() < 0.7:
            await self._stage.ready(rest)
        return await self._running(name)

    async def _running(self, name: str) -> str:
        await polled(lambda: self._is_up(name))
        return name

    async def _is_up(self, name: str) -> bool:
        return self._stage.is_up(name)

    async def _decider(self) -> str:
        """The registry that holds the lease, once it is one that lives."""
        found: list[str] = []

        async def is_found() -> bool:
            found[:] = await asyncio.to_thread(self._holders)
            return bool(found)

        async with asyncio.timeout(_DECIDER_S):
            await polled(is_found)
        return found[0]

    def _holders(self) -> list[str]:
        with Session(self._registry.engine) as session:
            row = session.get(LeaseRow, "decider")
            holder = row.holder if row else ""
        return [name for name in REGISTRIES if f"-{self._stage[name].process.pid}-" in holder]

    async def _revive(self, name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._stage[name].process.start()


def _other(names: Sequence[str], name: str) -> str:
    [other] = set(names) - {name}
    return other
