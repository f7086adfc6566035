"""Rollouts in SQL: what the controller makes of registered releases, reports and orders, whoever else does the same."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import event

from headrace.model.arms import CANARY, STABLE
from headrace.runtime.clock import now_us
from headrace.runtime.errors import FailedPreconditionError, NotFoundError
from headrace.runtime.settings import load
from headrace.trainer.analysis.evidence import ArmCounts, LiveShadow
from headrace.trainer.analysis.observations import ArmSeen, Observed
from headrace.trainer.analysis.policy import BudgetPolicy
from headrace.trainer.registry import Part, Registry, Release, name_of, open_registry
from headrace.trainer.rollouts.controller import Controller
from headrace.trainer.rollouts.decisions import replay
from headrace.trainer.rollouts.desk import Desk, Wish
from headrace.trainer.rollouts.evidence import Record
from headrace.trainer.rollouts.gathering import Gathering
from headrace.trainer.rollouts.lease import Lease
from headrace.trainer.rollouts.phases import Phase
from headrace.trainer.rollouts.reports import ArmSums, RankerReport, RankerReports, ShadowSums
from headrace.trainer.rollouts.rollout import Rollout
from headrace.trainer.rollouts.settings import RolloutSettings
from headrace.trainer.rollouts.storage import ConflictError, Rollouts
from tests.unit.trainer.rollout_cases import canary

_QUICK = {"GATE_PAIRS": "10", "ONE_KIND_S": "0", "INCREMENT_SOAK_S": "0", "LINEAGE_SOAK_S": "0", "STEP_HOURS": "0"}
_LINEAGE = Wish("", "other", (), False, "eve", "try it")


class SoundArtifacts:
    """Finds nothing wrong but with the releases that it is told of."""

    def __init__(self) -> None:
        self.faulty: dict[str, str] = {}

    async def fault(self, release: Release) -> str:
        return self.faulty.get(release.name, "")


class GivenOutcomes:
    """People who do in either arm what a test says."""

    def __init__(self) -> None:
        self.canary_clicks: float | None = None

    def observed(self, rollout: Rollout, now_us: int) -> Observed | None:
        if self.canary_clicks is None:
            return None
        found = canary(self.canary_clicks, 4_000, step=rollout.step)
        return Observed(found.metrics, ArmSeen(found.stable.people, 0.0, 0.0), ArmSeen(found.canary.people, 0.0, 0.0))


@dataclass
class Shop:
    """A registry with one controller, and rankers that do as the plan says."""

    registry: Registry
    environment: dict[str, str] = field(default_factory=lambda: dict(_QUICK))

    def __post_init__(self) -> None:
        self.settings = load(RolloutSettings, {f"HEADRACE_ROLLOUT_{k}": v for k, v in self.environment.items()})
        self.policy = self.settings.policy()
        self.rollouts = Rollouts(self.registry.engine, BudgetPolicy())
        self.reports = RankerReports(self.registry.engine)
        self.artifacts, self.outcomes = SoundArtifacts(), GivenOutcomes()
        self.desk = Desk(self.registry, self.rollouts, self.reports, self.policy, self.settings.ramp)
        self.controller = self.another("one")
        self.has_rankers, self.errors, self.overlap, self.refused = True, 0, 0.9, ""
        self.loads_canary = True

    def another(self, holder: str, lease_s: float = 5.0) -> Controller:
        gathering = Gathering(self.registry, self.artifacts, None, self.outcomes, 60.0)
        lease = Lease(self.registry.engine, holder, lease_s)

        async def told() -> None:
            return

        return Controller(self.registry, self.rollouts, self.reports, gathering, lease, self.policy, 0.01, None, told)

    def publish(self, number: int, lineage: str = "main") -> None:
        self.registry.add(_release(number, lineage))

    def report(self) -> None:
        """What a ranker of either track would say now."""
        plan = self.registry.plan()
        for track, release in ((STABLE, plan.stable), (CANARY, plan.canary)):
            if track == CANARY and not self.loads_canary:
                release = None
            shadow = None
            if track == STABLE and plan.shadow and plan.stable:
                live = LiveShadow(20, *([20 * self.overlap] * 4))
                shadow = ShadowSums(plan.shadow.name, plan.stable.name, live)
            counts = ArmCounts(answers=1_000 + 10 * self.errors, errors=self.errors)
            self.reports.take(
                RankerReport(
                    f"ranker-{track}",
                    1,
                    now_us(),
                    track,
                    plan.sequence,
                    release.name if release else "",
                    refused_release=self.refused,
                    refused_reason="its scores are not finite" if self.refused else "",
                    arms=(ArmSums("", "", counts),),
                    shadow=shadow,
                )
            )
        self.reports.write()

    async def settle(self, looks: int = 40) -> None:
        """Looks until nothing moves any more."""
        quiet = 0
        for _ in range(looks):
            if self.has_rankers:
                self.report()
            quiet = 0 if await self.controller.look() else quiet + 1
            if quiet > 2:
                return
            await asyncio.sleep(0)

    @property
    def stable(self) -> str:
        plan = self.registry.plan()
        return plan.stable.name if plan.stable else ""

    def phases(self, name: str) -> list[str]:
        return [step.to_phase.value for step in self.desk.history(100, 0, name)]


@pytest.fixture
def shop(tmp_path: Path):
    registry = open_registry(f"sqlite:///{tmp_path / 'registry.db'}")
    yield Shop(registry)
    registry.close()


@pytest.fixture
def either_shop(sql_url: str):
    """Over a database of each kind."""
    registry = open_registry(sql_url)
    yield Shop(registry)
    registry.close()


def _release(number: int, lineage: str = "main") -> Release:
    part = Part("config.json", "ab", 3)
    return Release(name_of(number), "", lineage, f"{lineage}-1", 8, 5, 6, "schema", (part,), {}, 7, "checksum")


async def test_the_first_release_serves_after_gate_0_and_the_next_after_gate_1(shop: Shop) -> None:
    shop.publish(1)
    await shop.settle()
    assert shop.stable == "r-000001"
    shop.publish(2)
    await shop.settle()
    assert shop.stable == "r-000002"
    assert shop.phases("ro-000001") == ["validating", "promoting", "soaking", "promoted"]
    assert shop.phases("ro-000002") == ["validating", "shadowing", "promoting", "soaking", "promoted"]
    assert all(replay(step.evidence) for step in shop.desk.history(100, 0, ""))


async def test_what_fails_a_gate_never_serves_and_the_next_one_is_tried(shop: Shop) -> None:
    shop.publish(1)
    await shop.settle()
    shop.artifacts.faulty["r-000002"] = "not finite: ranker.safetensors"
    shop.publish(2)
    await shop.settle()
    shop.overlap = 0.05
    shop.publish(3)
    await shop.settle()
    shop.overlap, shop.refused = 0.9, "r-000004"
    shop.publish(4)
    await shop.settle()
    assert shop.stable == "r-000001"
    assert [rollout.phase for rollout in shop.desk.newest(3, 0, True)] == [Phase.ROLLED_BACK] * 3
    assert [rollout.gates[-1].gate for rollout in shop.desk.newest(3, 0, True)] == [0, 1, 0]
    shop.publish(5)
    await shop.settle()
    assert shop.stable == "r-000005"


async def test_errors_after_a_promotion_take_it_back(shop: Shop) -> None:
    shop.publish(1)
    await shop.settle()
    shop.controller._policy = replace(shop.policy, increment_soak_s=1e6)
    shop.publish(2)
    await shop.settle()
    assert (shop.stable, shop.desk.found("").phase) == ("r-000002", Phase.SOAKING)
    shop.errors = 5_000
    await shop.settle()
    assert (shop.stable, shop.desk.found("").phase) == ("r-000001", Phase.ROLLED_BACK)
    assert "failed, 0.0% of stable" in shop.desk.found("").gates[-1].reason


async def test_a_newer_increment_supersedes_one_that_nothing_is_known_of(shop: Shop) -> None:
    shop.publish(1)
    await shop.settle()
    shop.controller._policy = replace(shop.policy, supersede_after_s=0.0)
    shop.has_rankers = False
    shop.controller._decides_since = None
    shop.publish(2)
    await shop.settle()
    assert shop.desk.found("").phase == Phase.SHADOWING
    shop.publish(3)
    await shop.settle(8)
    assert shop.phases("ro-000002")[-1] == "superseded"
    shadow = shop.registry.plan().shadow
    assert shadow is not None
    assert shadow.name == "r-000003"


async def _canary(shop: Shop) -> Rollout:
    """Another lineage's release in its canary phase."""
    shop.publish(1)
    await shop.settle()
    shop.publish(2, "other")
    shop.controller._policy = replace(shop.policy, shadow=replace(shop.policy.shadow, most_seconds=0.0))
    rollout = shop.desk.create(_LINEAGE)
    await shop.settle()
    return shop.rollouts.get(rollout.number)


async def test_another_lineage_goes_by_steps_and_takes_over_the_increments(shop: Shop) -> None:
    rollout = await _canary(shop)
    plan = shop.registry.plan()
    assert (rollout.phase, rollout.share_bp, plan.canary.name) == (Phase.CANARY, 100, "r-000002")  # type: ignore[union-attr]
    assert plan.assignment is not None
    assert (plan.assignment.rollout, plan.assignment.salt) == (rollout.name, rollout.salt)
    # nothing is known of what people do: never a promotion
    assert shop.phases(rollout.name)[-1] == "canary"
    shop.outcomes.canary_clicks = 1.0
    await shop.settle()
    assert (shop.stable, shop.registry.plan().assignment) == ("r-000002", None)
    assert shop.phases(rollout.name) == [
        *("validating", "shadowing", "canary", "canary", "promoting", "soaking", "promoted")
    ]
    shop.publish(3, "other")
    shop.publish(4, "main")
    await shop.settle()
    assert shop.stable == "r-000003"
    assert all(replay(step.evidence) for step in shop.desk.history(100, 0, ""))


async def test_nobody_is_given_to_a_canary_track_that_has_not_loaded_the_release(shop: Shop) -> None:
    shop.loads_canary = False
    rollout = await _canary(shop)
    rollout, plan = shop.desk.found(rollout.name), shop.registry.plan()
    assert (rollout.phase, rollout.share_bp) == (Phase.SHADOWING, 0)
    assert (plan.canary is not None, plan.assignment) == (True, None)
    assert "0 of 1 rankers of the canary track" in rollout.reason
    shop.loads_canary = True
    await shop.settle()
    assignment = shop.registry.plan().assignment
    assert assignment is not None
    assert (shop.desk.found(rollout.name).phase, assignment.share_bp) == (Phase.CANARY, 100)


async def test_a_canary_that_does_worse_is_rolled_back(shop: Shop) -> None:
    rollout = await _canary(shop)
    shop.outcomes.canary_clicks = 0.7
    await shop.settle()
    assert (shop.stable, shop.registry.plan().canary) == ("r-000001", None)
    assert shop.phases(rollout.name)[-2:] == ["rolling-back", "rolled-back"]


async def test_both_lineages_get_their_increments_while_a_canary_runs(shop: Shop) -> None:
    rollout = await _canary(shop)
    shop.publish(3)
    shop.publish(4, "other")
    await shop.settle()
    plan = shop.registry.plan()
    assert (shop.stable, plan.canary.name) == ("r-000003", "r-000004")  # type: ignore[union-attr]
    assert shop.rollouts.get(rollout.number).release == 4
    assert shop.rollouts.get(rollout.number).phase == Phase.CANARY


async def test_another_lineage_gives_way_only_when_that_is_asked_for(shop: Shop) -> None:
    first = await _canary(shop)
    shop.publish(3, "third")
    with pytest.raises(FailedPreconditionError, match="supersede is not set"):
        shop.desk.create(replace(_LINEAGE, lineage="third"))
    second = shop.desk.create(replace(_LINEAGE, lineage="third", supersede=True))
    assert shop.rollouts.get(first.number).phase == Phase.SUPERSEDED
    assert shop.registry.plan().canary is None
    assert (second.lineage, second.phase) == ("third", Phase.VALIDATING)


async def test_orders_of_people(shop: Shop) -> None:
    rollout = await _canary(shop)
    paused = shop.desk.pause("", "eve", "lunch")
    assert (paused.phase, paused.resumes_in, paused.share_bp) == (Phase.PAUSED, Phase.CANARY, 100)
    began_us = paused.step_time_us
    resumed = shop.desk.resume(rollout.name, "eve", "")
    assert (resumed.phase, resumed.step_time_us) == (Phase.CANARY, began_us)
    promoted = shop.desk.promote("", "eve", "I know better")
    assert (promoted.phase, shop.stable) == (Phase.PROMOTING, "r-000002")
    with pytest.raises(FailedPreconditionError, match="promoted already"):
        shop.desk.promote("", "eve", "")
    aborted = shop.desk.abort("", "eve", "no")
    assert (aborted.phase, shop.stable) == (Phase.ROLLING_BACK, "r-000001")
    with pytest.raises(NotFoundError):
        shop.desk.pause("ro-000099", "eve", "")
    assert all(replay(step.evidence) for step in shop.desk.history(100, 0, ""))


async def test_an_undo_goes_back_and_holds_increments_until_somebody_resumes(shop: Shop) -> None:
    for number in (1, 2, 3):
        shop.publish(number)
        await shop.settle()
    with pytest.raises(FailedPreconditionError, match="serves already"):
        shop.desk.undo("r-000003", "eve", "")
    plan = shop.desk.undo("", "eve", "poisoned")
    assert plan.stable is not None
    assert (plan.stable.name, plan.hold) == ("r-000002", "eve went back from r-000003 to r-000002")
    shop.publish(4)
    await shop.settle()
    assert shop.stable == "r-000002"
    again = open_registry(shop.registry.engine.url.render_as_string(hide_password=False))
    assert again.plan() == shop.registry.plan()
    again.close()
    # what served before is kept, however few are
    assert sorted(shop.registry.forget_beyond(0, "main")) == ["r-000003", "r-000004"]
    assert shop.desk.undo("r-000001", "eve", "older").stable == shop.registry.release("r-000001")
    shop.publish(5)
    shop.desk.resume("", "eve", "found it")
    await shop.settle()
    assert shop.stable == "r-000005"
    assert all(replay(step.evidence) for step in shop.desk.history(100, 0, ""))


async def test_an_undo_that_no_rollout_carries_is_all_there_or_not_at_all(shop: Shop) -> None:
    for number in (1, 2, 3):
        shop.publish(number)
        await shop.settle()
    # what is rolled back serves again in the end, which no rollout has brought
    for target in ("r-000001", "r-000002", "r-000001"):
        shop.desk.undo(target, "eve", "")
    before, history = shop.registry.plan(), shop.desk.history(100, 0, "")
    left = 0

    def ends(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    event.listen(shop.registry.engine, "commit", ends)
    for commits in range(1, 8):
        left = commits
        try:
            shop.desk.undo("r-000003", "eve", "")
        except KeyboardInterrupt:
            assert (shop.registry.plan(), shop.desk.history(100, 0, "")) == (before, history)
        else:
            break
    assert commits > 1
    assert (shop.stable, shop.desk.newest(1, 0, True)[0].phase) == ("r-000003", Phase.PROMOTED)


async def test_of_two_controllers_at_once_one_moves_a_rollout(either_shop: Shop) -> None:
    shop = either_shop
    shop.publish(1)
    await shop.settle()
    # as if either had a lease
    other = shop.another("two")
    other._lease = Lease(shop.registry.engine, "one", 5.0)
    for number in range(2, 6):
        shop.publish(number)
        for _ in range(30):
            shop.report()
            await asyncio.gather(*(_look(controller) for controller in (shop.controller, other)))
            if shop.stable == name_of(number) and shop.desk.found("").phase == Phase.PROMOTED:
                break
    for rollout in shop.desk.newest(10, 0, True):
        steps = shop.desk.history(100, 0, rollout.name)
        assert rollout.version == len(steps)
        assert [step.from_phase for step in steps[1:]] == [step.to_phase for step in steps[:-1]]
    assert shop.stable == "r-000005"


async def _look(controller: Controller) -> None:
    try:
        await controller.look()
    except ConflictError:
        return


async def test_a_step_from_an_old_version_is_refused(either_shop: Shop) -> None:
    shop = either_shop
    rollout = await _canary(shop)
    shop.desk.pause("", "eve", "")
    before = shop.registry.plan()
    step = shop.desk.history(100, 0, rollout.name)[-1]
    with pytest.raises(ConflictError, match="moved on"):
        shop.rollouts.move(rollout, Record.read(step.evidence), "late", {})
    assert shop.registry.plan() == before


def test_the_lease_is_one_processes_until_it_is_silent(either_shop: Shop) -> None:
    shop = either_shop
    first, second = (Lease(shop.registry.engine, holder, lasts_s) for holder, lasts_s in (("a", 0.2), ("b", 5.0)))
    assert [first.is_mine(), second.is_mine(), first.is_mine()] == [True, False, True]
    deadline_us = now_us() + 5_000_000
    while not second.is_mine():
        assert now_us() < deadline_us
    assert not first.is_mine()
    second.give_up()
    assert first.is_mine()


async def test_alpha_is_a_budget_of_the_day(shop: Shop) -> None:
    await _canary(shop)
    shop.publish(3, "third")
    second = shop.desk.create(replace(_LINEAGE, lineage="third", supersede=True))
    spent = {rollout.name: rollout.alpha for rollout in shop.desk.newest(10, 0, True)}
    assert sum(alpha for name, alpha in spent.items() if name in ("ro-000002", second.name)) < 0.05
    assert spent[second.name] < spent["ro-000002"]
