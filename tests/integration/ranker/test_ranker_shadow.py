"""A shadow release is held against the served one on live requests; who is answered never notices."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from headrace.model.candidates import CANDIDATE_FEATURES
from headrace.model.ranker_network import RankerNetwork, RankerShape
from headrace.model.towers import Towers, TowerShape
from headrace.v1 import trainer_pb2

ANN = "v:ann"


class Increments:
    """A trained-looking release, and others made of its weights."""

    def __init__(self, make) -> None:
        self._make = make
        torch.manual_seed(3)
        self.towers = Towers(
            TowerShape(make.dimension, max_length=8, text_width=16, brand_buckets=8, category_buckets=8)
        )
        self.ranker = RankerNetwork(RankerShape(len(CANDIDATE_FEATURES), hidden=16))
        with torch.no_grad():
            # features that differ from item to item decide, not one alone
            self.ranker.heads.weight.normal_(std=0.3)

    def parts(self, towers: Callable[[nn.Module], None] = lambda each: None, ranker=lambda each: None):
        """The parts after `towers` and `ranker` did something to the weights."""
        torch.manual_seed(6)
        made = Towers(self.towers.shape), RankerNetwork(self.ranker.shape)
        for module, source, change in zip(made, (self.towers, self.ranker), (towers, ranker), strict=True):
            module.load_state_dict(source.state_dict())
            with torch.no_grad():
                change(module)
        return self._make.model_parts(towers=made[0], ranker=made[1])


def nudge(module: nn.Module) -> None:
    """What an increment does: every weight moves by about a hundredth."""
    for weight in module.parameters():
        weight += 0.01 * weight.std(correction=0) * torch.randn_like(weight)


def flip(module: nn.Module) -> None:
    module.heads.weight *= -1


def shuffle(module: nn.Module) -> None:
    for weight in module.parameters():
        weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))


@pytest.fixture
def increments(make) -> Increments:
    return Increments(make)


async def _stocked(world, increments) -> trainer_pb2.Release:
    """A shop with people of different tastes, and its served release."""
    for ordinal in range(60):
        world.store.make_popular(ordinal, (ordinal * 7 % 60) / 20)
    for place in range(0, 60, 9):
        await world.store.act(ANN, place, 1)
    await world.caught_up()
    await world.push("main", 1, range(60), world.make.vectors())
    stable = world.registry.release("stable", increments.parts(), delta_sequence=60)
    await world.registry.serve(stable)
    await world.until(lambda status: status.release == "stable")
    return stable


async def _shadowed(world, stable, name, parts, *, pairs: int = 5) -> dict[str, float]:
    """Means over some pairs of what a shadow made of the same requests."""
    shadow = world.registry.release(name, parts, delta_sequence=60)
    await world.registry.serve(stable, shadow=shadow)
    await world.until(lambda status: status.shadow_release == name)

    async def reported() -> bool:
        answer = await world.recommend()
        assert answer.info.release == "stable"
        return any(report.shadow.release == name and report.shadow.pairs >= pairs for report in _reports(world))

    await world.make.eventually(reported)
    (report,) = _reports(world)
    sums = report.shadow
    assert (sums.baseline, sums.not_finite, sums.failures) == ("stable", 0, 0)
    names = [field.name for field in sums.DESCRIPTOR.fields if field.name.startswith("sum_")]
    return {name.removeprefix("sum_"): getattr(sums, name) / sums.pairs for name in names}


def _reports(world) -> list[trainer_pb2.ReportServingRequest]:
    return list(world.registry.reports.values())


@pytest.fixture
async def world(tmp_path, make):
    async with make.world(tmp_path, shadow_per_s=1_000) as world:
        world.make = make
        yield world


async def test_faulty_shadows_are_far_from_the_served_release_and_honest_increments_near(world, increments):
    stable = await _stocked(world, increments)
    honest = await _shadowed(world, stable, "honest", increments.parts(nudge, nudge))
    flipped = await _shadowed(world, stable, "flipped", increments.parts(ranker=flip))
    shuffled = await _shadowed(world, stable, "shuffled", increments.parts(ranker=shuffle))
    lost = await _shadowed(world, stable, "lost", increments.parts(towers=shuffle))
    assert honest["overlap_at_20"] >= 0.9
    assert honest["rank_correlation"] >= 0.98
    assert honest["tower_correlation"] >= 0.98
    assert honest["click_probability"] == pytest.approx(honest["baseline_click_probability"], rel=0.05)
    assert honest["ms"] > 0 < honest["baseline_ms"]
    assert flipped["overlap_at_20"] <= 0.3
    assert flipped["rank_correlation"] <= -0.5
    assert shuffled["overlap_at_20"] <= 0.7
    assert shuffled["rank_correlation"] <= 0.5
    # the towers alone tell
    assert lost["tower_correlation"] <= 0.7


async def test_no_more_than_the_set_number_a_second_are_scored(tmp_path, make, increments):
    async with make.world(tmp_path, shadow_per_s=5) as world:
        world.make = make
        stable = await _stocked(world, increments)
        begun = time.monotonic()
        await _shadowed(world, stable, "next", increments.parts(nudge), pairs=3)
        (report,) = _reports(world)
        assert report.shadow.pairs <= 1 + 5 * (time.monotonic() - begun)


async def test_a_shadow_is_reported_as_held_also_when_no_request_is_taken(tmp_path, make, increments):
    async with make.world(tmp_path, shadow_per_s=0) as world:
        world.make = make
        stable = await _stocked(world, increments)
        shadow = world.registry.release("next", increments.parts(nudge), delta_sequence=60)
        await world.registry.serve(stable, shadow=shadow)

        async def is_reported() -> bool:
            await world.recommend()
            return any(report.shadow.release == "next" for report in _reports(world))

        await make.eventually(is_reported)
        (report,) = _reports(world)
        assert (report.shadow.baseline, report.shadow.pairs) == ("stable", 0)


async def test_sums_begin_anew_with_another_pair(world, increments):
    stable = await _stocked(world, increments)
    await _shadowed(world, stable, "first", increments.parts(nudge), pairs=30)
    await _shadowed(world, stable, "second", increments.parts(nudge), pairs=1)
    (report,) = _reports(world)
    assert report.shadow.release == "second"
    assert report.shadow.pairs < 30


async def test_a_shadow_that_fails_gate_0_is_reported_and_never_asked(world, increments):
    stable = await _stocked(world, increments)
    bad = world.registry.release("bad", increments.parts(), delta_sequence=60, feature_schema="of tomorrow")
    await world.registry.serve(stable, shadow=bad)

    async def reported() -> bool:
        await world.recommend()
        return any(report.refused_release == "bad" for report in _reports(world))

    await world.make.eventually(reported)
    (report,) = _reports(world)
    assert "of tomorrow" in report.refused_reason
    assert (report.track, report.release, report.plan_sequence) == ("stable", "stable", world.registry.plan.sequence)
    assert not report.HasField("shadow")
    assert (await world.status()).shadow_release == ""


async def test_a_shadow_that_waits_for_its_vectors_is_not_reported_as_refused(world, increments):
    stable = await _stocked(world, increments)
    parts = world.make.model_parts(space="next")
    late = world.registry.release("late", parts, space="next", delta_sequence=1)
    await world.registry.serve(stable, shadow=late)
    await world.until(lambda status: status.refused_release == "late")
    assert all(report.refused_release == "" for report in _reports(world))
    # its own space's vectors are followed beside those that serve
    await world.push("next", 1, range(60), world.make.vectors())
    await world.until(lambda status: status.shadow_release == "late")
    assert (await world.status()).space == "main"


async def test_a_promoted_shadow_and_an_undo_need_no_loading(world, increments):
    stable = await _stocked(world, increments)
    shadow = world.registry.release("next", increments.parts(nudge), delta_sequence=60)
    await world.registry.serve(stable, shadow=shadow)
    await world.until(lambda status: status.shadow_release == "next")
    fetches = world.registry.fetches
    await world.registry.serve(shadow)
    await world.until(lambda status: status.release == "next")
    await world.registry.serve(stable)
    await world.until(lambda status: status.release == "stable")
    assert world.registry.fetches == fetches


async def test_an_undo_does_not_wait_for_a_shadow_that_is_not_ready(tmp_path, make, increments):
    async with make.world(tmp_path, vectors_wait_s=60.0) as world:
        world.make = make
        stable = await _stocked(world, increments)
        shadow = world.registry.release("next", increments.parts(nudge), delta_sequence=60)
        await world.registry.serve(shadow)
        await world.until(lambda status: status.release == "next")
        never = world.registry.release("never", increments.parts(nudge), delta_sequence=10_000)
        await world.registry.serve(shadow, shadow=never)
        await world.registry.serve(stable)
        await world.until(lambda status: status.release == "stable")


async def test_the_canary_track_serves_the_plans_canary_and_nothing_else(tmp_path, make, increments):
    async with make.world(tmp_path, track="canary") as world:
        await world.push("main", 1, range(60), make.vectors())
        stable, canary = (world.registry.release(name, increments.parts(), delta_sequence=60) for name in ("s", "c"))
        await world.registry.serve(stable, canary=canary, shadow=stable)
        await world.until(lambda status: status.release == "c")
        assert (await world.status()).shadow_release == ""
        await world.registry.serve(stable)
        await world.until(lambda status: status.release == "")
