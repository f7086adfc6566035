"""Releases from the learner to the answer, through every gate, with all processes real and people who shop.

The tests share one chain and follow each other as they stand here.
"""

from __future__ import annotations

import time

import pytest

from headrace.model.arms import CANARY, STABLE, arm_of
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.trainer.registry import Registry, number_of
from headrace.trainer.rollouts.decisions import replay
from headrace.v1.index_pb2 import GetIndexStatsRequest
from headrace.v1.log_pb2 import Impression
from headrace.v1.trainer_pb2 import ROLLOUT_KIND_LINEAGE
from tests.e2e.rollouts.broken import Poison, flip_ranker, flip_towers, poison_with_nan, published, shuffle_ranker
from tests.e2e.rollouts.chain import CANARY as CANARY_RANKER
from tests.e2e.rollouts.chain import LEARNER, OVER, USUAL, WIDE, Chain, phase, said, until
from tests.e2e.rollouts.shoppers import Answered, Shoppers, products

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

POISONS = {
    "NaN": Poison(0, ranker=poison_with_nan, has_golden=False),
    "wrong space": Poison(0, space="main-9", is_consistent=False),
    "space of nobody": Poison(0, space="main-9"),
    "wrong schema": Poison(0, feature_schema="features-0", is_consistent=False),
    "schema of other code": Poison(0, feature_schema="features-0"),
    "flipped ranker": Poison(1, ranker=flip_ranker),
    "shuffled ranker": Poison(1, ranker=shuffle_ranker),
    "flipped user tower": Poison(1, towers=flip_towers),
}
UNDO_S = 5.0
_SHARE_BP = 5_000
_TRIES = 8


async def test_what_a_sound_learner_publishes_passes_gate_1_and_serves(chain: Chain, shoppers: Shoppers) -> None:
    first = (await chain.status()).release

    async def is_followed() -> bool:
        served = (await chain.status()).release
        return served != first and await chain.is_promoted(served)

    async with shoppers.shopping():
        await until(is_followed)
        # a broken learner takes its place
        await chain.stop(LEARNER)
        await until(chain.is_quiet)
    found = await chain.rollout_of((await chain.status()).release)
    assert found is not None
    verdict = next(gate for gate in found.gates if gate.gate == 1)
    assert verdict.passed
    assert verdict.reason.startswith("no harm in"), verdict


@pytest.mark.parametrize("name", POISONS)
async def test_a_poisoned_release_answers_nobody(
    name: str, chain: Chain, shoppers: Shoppers, registry: Registry, store: ArtifactStore
) -> None:
    served, poison, stood = (await chain.status()).release, POISONS[name], set()
    release = published(registry, store, poison)

    async def is_over() -> bool:
        stood.add((await chain.status()).release)
        found = await chain.rollout_of(release)
        return found is not None and phase(found) in OVER

    async with shoppers.shopping():
        await until(is_over)
    found = await chain.rollout_of(release)
    assert found is not None
    failed = [gate.gate for gate in found.gates if not gate.passed]
    assert (phase(found), failed) == ("ROLLED_BACK", [poison.gate]), found.reason
    assert stood == {served}
    assert release not in {answer.release for answer in shoppers.answers}
    assert all(replay(step.evidence) for step in await chain.history(found.rollout))


async def test_an_undo_is_in_every_answer_within_seconds_and_survives_a_restart_of_everything(
    chain: Chain, shoppers: Shoppers, registry: Registry
) -> None:
    bad, begun = (await chain.status()).release, len(await chain.rollouts())
    async with shoppers.shopping():
        ordered_s = await chain.cli("rollout", "undo", "--reason", "prices look wrong")
        stable = registry.plan().stable
        assert stable is not None
        good = stable.name
        await until(lambda: chain.serves(good))
        assert {answer.release for answer in await shoppers.told(20)} == {good}
    took_s = max(answer.at_s for answer in shoppers.since(ordered_s) if answer.release == bad) - ordered_s
    assert good != bad
    assert took_s <= UNDO_S, f"the last answer by {bad} came {took_s:.2f} s after the order"
    print(f"undo: {took_s:.2f} s")

    # the learner that made it goes on
    await chain.kill(*chain.running)
    await chain.start(*USUAL)
    await until(lambda: chain.serves(good))
    async with shoppers.shopping():
        newest = registry.newest_number()

        async def has_published() -> bool:
            return registry.newest_number() > newest + 1

        await until(has_published)
        assert {answer.release for answer in await shoppers.told(20)} == {good}
        assert len(await chain.rollouts()) == begun
        await chain.cli("rollout", "resume")

        async def is_followed() -> bool:
            served = (await chain.status()).release
            return served > bad and await chain.is_promoted(served)

        await until(is_followed)


async def test_a_lineage_goes_through_its_phases_and_an_abort_puts_everybody_back(
    chain: Chain, shoppers: Shoppers, registry: Registry
) -> None:
    await chain.start(WIDE, CANARY_RANKER)
    async with shoppers.shopping():
        rollout = await _in_canary(chain, registry)
        assignment = registry.plan().assignment
        assert assignment is not None
        assert (assignment.rollout, assignment.share_bp) == (rollout, _SHARE_BP)

        async def is_shared() -> bool:
            status = await chain.status()
            return status.rollout == rollout and status.canary_is_asked

        await until(is_shared)
        # too few for a guardrail: how a busy machine's canary starts is not what is asked here
        told = await shoppers.told(200)
        await chain.cli("rollout", "abort", "--reason", "enough seen")
        aborted_s = time.monotonic()
        await until(lambda: chain.is_over(rollout))
        assert {answer.track for answer in await shoppers.told(20)} == {STABLE}
    late_s = max((each.at_s - aborted_s for each in shoppers.since(aborted_s) if each.track == CANARY), default=0.0)
    assert late_s <= UNDO_S, f"the canary's last answer came {late_s:.2f} s after the abort"
    for answer in told:
        _check_answer(answer, registry, assignment.salt)
    by_canary = {answer.visitor for answer in told if answer.track == CANARY}
    assert len(by_canary) >= 30
    went = [said(step.to_phase) for step in await chain.history(rollout)]
    assert went == ["VALIDATING", "SHADOWING", "CANARY", "ROLLING_BACK", "ROLLED_BACK"]
    assert all(replay(step.evidence) for step in await chain.history(rollout))
    shown = await _impressions(chain, rollout)
    assert {(each.arm, each.track) for each in shown} >= {(STABLE, STABLE), (CANARY, CANARY)}
    for each in shown:
        assert each.arm == arm_of(assignment.salt, _SHARE_BP, each.user_key)
        assert registry.release(each.release).lineage == ("wide" if each.track == CANARY else "main")
    assert await _spaces(chain) == ("main", {"main", "wide"})


async def test_a_promoted_lineage_serves_everybody_and_its_increments_follow(
    chain: Chain, shoppers: Shoppers, registry: Registry
) -> None:
    async with shoppers.shopping():
        rollout = await _in_canary(chain, registry)
        await chain.cli("rollout", "promote", "--reason", "the sale begins at noon")
        await until(lambda: chain.is_over(rollout))
        promoted = (await chain.status()).release

        async def is_followed() -> bool:
            served = (await chain.status()).release
            return served > promoted and await chain.is_promoted(served)

        await until(is_followed)
        told = await shoppers.told(100)

        async def is_default() -> bool:
            return await _spaces(chain) == ("wide", {"main", "wide"})

        await until(is_default)
    assert {(answer.track, answer.space.split("-")[0]) for answer in told} == {(STABLE, "wide")}
    assert {registry.release(answer.release).lineage for answer in told} == {"wide"}
    assert registry.plan().canary is None


async def _in_canary(chain: Chain, registry: Registry) -> str:
    """Starts a rollout of the other lineage; its name once it answers people.

    A lineage that has learned too little yet is stopped by gate 1, and is tried again when it knows more.
    """
    tried = 0

    async def is_published() -> bool:
        newest = registry.newest_of("wide")
        return newest is not None and newest.number > tried

    for _ in range(_TRIES):
        await until(is_published)
        await chain.cli("rollout", "start", "--lineage", "wide")
        rollout = next(each.rollout for each in await chain.rollouts() if each.kind == ROLLOUT_KIND_LINEAGE)

        async def is_decided(name: str = rollout) -> bool:
            return phase(await chain.rollout(name)) in ("CANARY", *OVER)

        await until(is_decided)
        found = await chain.rollout(rollout)
        if phase(found) == "CANARY":
            return rollout
        failed = [(gate.gate, gate.reason) for gate in found.gates if not gate.passed]
        assert [gate for gate, _ in failed] == [1], failed
        tried = number_of(found.release)
    pytest.fail(f"gate 1 let none of {_TRIES} releases pass: {failed}")


def _check_answer(answer: Answered, registry: Registry, salt: str) -> None:
    """Each track answers by its own lineage, and the canary nobody but people of its arm."""
    lineage = "wide" if answer.track == CANARY else "main"
    assert registry.release(answer.release).lineage == lineage
    assert answer.space.startswith(f"{lineage}-")
    if answer.track == CANARY:
        assert arm_of(salt, _SHARE_BP, f"v:{answer.visitor}") == CANARY


async def _impressions(chain: Chain, rollout: str) -> list[Impression]:
    log, found, offset = open_event_log(CommonSettings(event_log_url=chain.stores.event_log)), [], 0
    try:
        while records := await log.read(offset, limit=2_000):
            shown = [Impression.FromString(each.payload) for each in records if each.kind == "impression"]
            found += [each for each in shown if each.rollout == rollout]
            offset = records[-1].offset
    finally:
        await log.close()
    return found


async def _spaces(chain: Chain) -> tuple[str, set[str]]:
    """Whose space is the default one, and who has one that holds every product."""
    stats = await chain.client.index.GetIndexStats(GetIndexStatsRequest(), timeout=5)
    whole = {space.space.split("-")[0] for space in stats.spaces if space.vectors == len(products())}
    return stats.active_space.split("-")[0], whole
