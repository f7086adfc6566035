"""A stable ranker with a canary track: a real canary, and before it a server that may spoil its answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.faulty_canary import FaultyCanary, FaultyProcess, served
from headrace.model.arms import arm_of
from headrace.model.attribution import TokenFacts, Tokens
from headrace.ranker.__main__ import compose
from headrace.ranker.settings import RankerSettings
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.privacy import open_privacy
from headrace.runtime.settings import CommonSettings
from headrace.v1 import log_pb2, ranker_pb2, trainer_pb2

ROLLOUT, SALT = "ro-000001", "salt"
HALF = 5_000


@dataclass
class Rollout:
    """The world with both tracks in it. `world.ranker` is the stable one."""

    world: Any
    faulty: FaultyCanary
    faulty_address: str
    # a process between stable and `faulty`, where it is to be killed
    process: FaultyProcess
    stable_release: trainer_pb2.Release
    canary_release: trainer_pb2.Release
    tokens: Tokens

    async def plan(self, share_bp: int = HALF, *, rollout: str = ROLLOUT, valid_for_ms: int = 600_000) -> None:
        """Puts a share on the canary and waits until stable acts on it."""
        registry = self.world.registry
        await registry.serve(
            self.stable_release,
            canary=self.canary_release,
            assignment=trainer_pb2.Assignment(rollout=rollout, salt=SALT, share_bp=share_bp),
            valid_for_ms=valid_for_ms,
        )
        await self.world.until(lambda status: status.plan_sequence == registry.plan.sequence)

    def people(self, arm: str, count: int, share_bp: int = HALF) -> list[str]:
        """Visitors of an arm."""
        names = (f"visitor-{number}" for number in range(100 * count))
        return [name for name in names if arm_of(SALT, share_bp, f"v:{name}") == arm][:count]

    def facts(self, response: Any) -> TokenFacts:
        return self.tokens.facts(response.info.attribution_token)

    async def asked(self, method: str, visitor: str, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        """A whole answer of one of the three methods."""
        request = {
            "Recommend": ranker_pb2.RecommendRequest(serving_config="home", visitor_id=visitor),
            "Search": ranker_pb2.SearchRequest(query="mug", visitor_id=visitor),
            "Rank": ranker_pb2.RankRequest(visitor_id=visitor, product_ids=["p-1", "p-2", "nothing"]),
        }[method]
        response = await getattr(self.world.ranker, method)(request, timeout=10, metadata=metadata)
        assert response.results
        return response

    async def until_asked_again(self, within_s: float = 15) -> None:
        """Waits until the canary is asked again; somebody has to come for it to be found out."""
        someone = self.people("canary", 1)[0]

        async def is_asked() -> bool:
            return bool((await self.asked("Recommend", someone)).info.track == "canary")

        await self.world.eventually(is_asked, within_s)


@pytest.fixture
def two_tracks(make: SimpleNamespace) -> Callable[..., Any]:
    """Opens a Rollout in a folder; settings are those of the stable ranker.

    Its canary is awaited if it `is_sound`, and stands behind a process of its own if it `is_apart`.
    """

    @asynccontextmanager
    async def opened(
        folder: Path, *, is_sound: bool = True, is_apart: bool = False, **settings: object
    ) -> AsyncIterator[Rollout]:
        async with AsyncExitStack() as stack:
            faulty = FaultyCanary()
            address = behind = f"127.0.0.1:{await stack.enter_async_context(served(faulty, 0))}"
            process = FaultyProcess(behind)
            stack.push_async_callback(process.kill)
            if is_apart:
                await process.start()
                address = process.address
            chosen = {"canary_address": address, "canary_budget_s": 5.0} | settings
            world = await stack.enter_async_context(make.world(folder, **chosen))
            world.eventually = make.eventually
            await world.push("main", 1, range(len(make.products)), make.vectors())
            canary = await _canary(make, world, stack)
            faulty.stand_before(canary.address)
            release = world.registry.release
            rollout = Rollout(
                world,
                faulty,
                behind,
                process,
                release("r-1", make.model_parts(0), delta_sequence=len(make.products)),
                release("r-2", make.model_parts(1), delta_sequence=len(make.products)),
                Tokens(open_privacy(CommonSettings(data_dir=folder)).derived("attribution tokens")),
            )
            await rollout.plan()
            await world.until(lambda status: status.release == "r-1")
            if is_sound:
                await rollout.until_asked_again()
            yield rollout

    return opened


async def _canary(make: SimpleNamespace, world: Any, stack: AsyncExitStack) -> Any:
    settings = RankerSettings(
        **make.quick,
        track="canary",
        feature_store_address=world.peers["feature-store"].address,
        index_address=world.peers["index"].address,
        trainer_address=world.peers["trainer"].address,
    )
    parts = await stack.enter_async_context(compose(settings, CommonSettings(data_dir=world.data_dir)))
    canary = make.peer(parts)
    await canary.start()
    stack.push_async_callback(canary.stop)
    return canary


@pytest.fixture
async def rollout(tmp_path: Path, two_tracks: Callable[..., Any]) -> AsyncIterator[Rollout]:
    """Half of the people on a sound canary."""
    async with two_tracks(tmp_path) as opened:
        yield opened


@pytest.fixture
def impressions() -> Callable[[Rollout, set[str]], Awaitable[list[Any]]]:
    """Waits until the log holds the impressions of these tokens; all that it holds, of both rankers."""

    async def read(rollout: Rollout, tokens: set[str]) -> list[Any]:
        event_log = open_event_log(CommonSettings(data_dir=rollout.world.data_dir))
        found: list[Any] = []

        async def holds_them() -> bool:
            records = await event_log.read(0, kinds=["impression"])
            found[:] = [log_pb2.Impression.FromString(record.payload) for record in records]
            return tokens <= {each.attribution_token for each in found}

        try:
            await rollout.world.eventually(holds_them)
        finally:
            await event_log.close()
        return found

    return read
