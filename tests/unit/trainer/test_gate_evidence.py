"""Gate 1 on what was logged: honest increments pass, broken weights are caught, people who left are forgotten."""

from __future__ import annotations

import asyncio
import copy
import os
from pathlib import Path

import numpy as np
import pytest

from headrace.model.candidates import FEATURE_SCHEMA
from headrace.model.serving_model import ModelError
from headrace.runtime.erasures import Erasure
from headrace.runtime.errors import UnavailableError
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.privacy import UNKEYED
from headrace.trainer.analysis.evidence import (
    Calibration,
    Kept,
    LiveShadow,
    LoggedEvidence,
    PairedMean,
    ShadowEvidence,
    ShadowVerdict,
)
from headrace.trainer.analysis.gate_one import INCONCLUSIVE, PASS, STOP, shadow_verdict
from headrace.trainer.analysis.policy import ShadowPolicy
from headrace.trainer.analysis.written import read, written
from headrace.trainer.gate_evidence import GateEvidence
from headrace.trainer.off_policy_values import NO_SUPPORT
from headrace.trainer.paired_recall import ItemVectors
from headrace.trainer.paired_scores import Scored
from headrace.trainer.recent_lists import RecentLists
from headrace.trainer.recent_states import RecentStates
from headrace.trainer.registry import Release
from headrace.trainer.settings import TrainerSettings
from tests.unit.trainer.gate_shop import GateShop, sliced

_INCREMENTS = int(os.environ.get("TEST_GATE_INCREMENTS", "6"))
# of one of 144 releases a day
_ALPHA = 0.05 / 144


def _verdict(logged: LoggedEvidence) -> ShadowVerdict:
    """What is decided by the log alone, once nothing more is waited for."""
    return shadow_verdict(ShadowEvidence("r", True, 1e9, _ALPHA, LiveShadow(), logged), ShadowPolicy())


class Watched:
    """A shop, its log, and the evidence that is gathered from it."""

    def __init__(self, folder: Path, settings: TrainerSettings) -> None:
        self.shop = GateShop(settings)
        self.log = SqliteEventLog(folder / "log.db")
        self.evidence = GateEvidence(self.log, self.shop.read, self.shop, window_s=300, lists=1_000)
        self.stopped: list[str] = []

    async def go_on(self, people: int) -> None:
        """Something happens and is learned."""
        records = [*([] if self.shop.written else self.shop.products()), *self.shop.minute(people)]
        await self.log.append(records)
        self.shop.learn(records)

    async def shadow(self, candidate: Release, baseline: Release) -> LoggedEvidence:
        """The evidence once all that is logged is taken in."""
        end, _ = await self.log.end()
        await self.evidence.reached(end)
        return await self.evidence.shadow(candidate, baseline)


@pytest.fixture(scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory):
    settings = TrainerSettings(dimension=16, max_length=10, text_width=16, uniform_negatives=32, row_rate=0.02)
    watched = Watched(tmp_path_factory.mktemp("gate"), settings)
    following = asyncio.create_task(watched.evidence.run())
    for _ in range(5):
        await watched.go_on(150)
    watched.shop.publish()
    for _ in range(_INCREMENTS):
        await watched.go_on(40)
        candidate = watched.shop.publish()
        verdict = _verdict(await watched.shadow(candidate, watched.shop.released[-2]))
        if verdict.decision != PASS:
            watched.stopped.append(verdict.reason)
    yield watched
    following.cancel()
    await asyncio.wait([following])
    await watched.log.close()


async def test_honest_increments_pass(watched: Watched) -> None:
    assert len(watched.shop.released) == _INCREMENTS + 1
    assert watched.stopped == []


@pytest.mark.parametrize("fault", ["flipped_ranker", "flipped_order", "shuffled_ranker"])
async def test_a_broken_ranker_network_is_caught(watched: Watched, fault: str) -> None:
    broken = watched.shop.publish(ranker=getattr(watched.shop, fault)())
    logged = await watched.shadow(broken, watched.shop.released[-1])
    verdict = _verdict(logged)
    assert verdict.decision == STOP
    assert logged.order_loss.difference > 10 * logged.order_loss.standard_error


@pytest.mark.parametrize(("part", "metric"), [("user", "towers_kept"), ("query", "queries_kept")])
async def test_flipped_towers_are_caught(watched: Watched, part: str, metric: str) -> None:
    broken = watched.shop.publish(towers=watched.shop.flipped_towers(part))
    logged = await watched.shadow(broken, watched.shop.released[-1])
    verdict = _verdict(logged)
    assert verdict.decision == STOP
    assert metric in verdict.reason
    # the features that were logged are those of the serving tower
    assert logged.click_loss.difference == logged.order_loss.difference == 0


async def test_where_places_do_not_matter_no_order_is_worth_more(watched: Watched) -> None:
    # in this shop people look at what they like wherever it stands
    broken = watched.shop.publish(ranker=watched.shop.shuffled_ranker())
    logged = await watched.shadow(broken, watched.shop.released[-1])
    for found, usual in (
        (logged.snips, logged.baseline_snips),
        (logged.doubly_robust, logged.baseline_doubly_robust),
    ):
        assert min(found.effective_sample_size, usual.effective_sample_size) > 25
        assert found.lower < usual.upper
        assert usual.lower < found.upper


async def test_weights_that_give_no_numbers_are_no_model(watched: Watched) -> None:
    network = copy.deepcopy(watched.shop.ranker.averaged)
    # finite, and beyond what a float can hold once it is multiplied
    network.crosses[0].weight.data.fill_(3e38)
    broken = watched.shop.publish(ranker=network)
    with pytest.raises(ModelError, match="not finite"):
        await watched.shadow(broken, watched.shop.released[-1])


def test_scores_that_are_no_numbers_are_counted_and_say_nothing() -> None:
    nan, inf = float("nan"), float("inf")
    scored = Scored.of(np.array([1, nan, 3], np.float32), np.array([0.5, 0.5, inf], np.float32))
    assert scored.not_finite == 2
    assert scored.scores_R.tolist() == [1, 0, 0]


async def test_a_release_of_other_features_is_no_model_for_what_was_logged(watched: Watched) -> None:
    other = watched.shop.publish(towers=watched.shop.learner.towers)
    parts = dict(watched.shop.parts[other.name])
    parts["config.json"] = parts["config.json"].replace(FEATURE_SCHEMA.encode(), b"another")
    watched.shop.parts[other.name] = parts
    serving = watched.shop.released[-1]
    with pytest.raises(ModelError, match="another"):
        await watched.shadow(other, serving)
    # nothing was logged that the one that serves could score, so nothing is held against a successor
    logged = await watched.shadow(serving, other)
    assert (logged.lists, logged.not_finite) == (0, 0)
    assert logged.towers.states > 0


async def test_a_baseline_that_is_broken_says_nothing_against_a_candidate(watched: Watched) -> None:
    serving = watched.shop.released[-1]
    broken = watched.shop.publish(towers=watched.shop.learner.towers)
    watched.shop.parts[broken.name] = {"config.json": b"{}"}
    logged = await watched.shadow(serving, broken)
    assert (logged.lists, logged.towers.states, logged.not_finite) == (0, 0, 0)
    assert _verdict(logged).decision == INCONCLUSIVE
    with pytest.raises(ModelError, match="missing parts"):
        await watched.shadow(broken, serving)


async def test_without_the_index_nothing_is_said_of_towers(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> ItemVectors:
        raise UnavailableError("the index is away")

    monkeypatch.setattr(watched.shop, "of", away)
    logged = await watched.shadow(watched.shop.released[-1], watched.shop.released[-2])
    assert logged.towers.states == logged.queries.states == 0
    assert logged.lists > 0


async def test_nothing_logged_is_no_evidence(tmp_path: Path, watched: Watched) -> None:
    log = SqliteEventLog(tmp_path / "empty.db")
    evidence = GateEvidence(log, watched.shop.read, watched.shop, window_s=300, lists=10)
    logged = await evidence.shadow(watched.shop.released[-1], watched.shop.released[-2])
    await log.close()
    assert (logged.lists, logged.people, logged.click_loss.people, logged.order_loss.people) == (0, 0, 0, 0)
    assert _verdict(logged).decision == INCONCLUSIVE


def test_evidence_can_be_kept_and_read_again() -> None:
    kept, none = Kept(1, 1, 0, 1, 0), PairedMean(0.1, 0.2, -0.1, 0.01, 5)
    logged = LoggedEvidence(
        1, 1, none, none, *(Calibration(0.1, 0.2, 0.3),) * 2, 1.0, *(NO_SUPPORT,) * 4, kept, kept, 0
    )
    assert read(LoggedEvidence, written(logged)) == logged


def test_people_who_are_forgotten_are_no_evidence(settings: TrainerSettings) -> None:
    shop = GateShop(settings)
    found = sliced([*shop.products(), *shop.minute(20)])
    later = sliced(shop.minute(20))
    lists, states = RecentLists(60, 100), RecentStates(10, 100, 100)
    for each in (found, later):
        lists.fold(each.impressions, each.events)
        states.fold(each.searches, each.events)
    [somebody, *_] = {shown.user_key for shown in found.impressions}
    owner = UNKEYED.owner(somebody)
    assert owner in lists.all().owners_G
    people = len(states.states())
    digests = frozenset({UNKEYED.digest(somebody)})
    erasure = Erasure("e-1", 1, 2**62, digests, frozenset(), UNKEYED.fingerprint)
    lists.erase(erasure)
    states.erase(erasure)
    assert owner not in lists.all().owners_G
    assert len(states.states()) == people - 1


def test_only_the_newest_lists_and_people_are_kept(settings: TrainerSettings) -> None:
    shop = GateShop(settings)
    lists, states = RecentLists(60, 30), RecentStates(10, 15, 20)
    for _ in range(4):
        found = sliced(shop.minute(25))
        lists.fold(found.impressions, found.events)
        states.fold(found.searches, found.events)
    assert (len(lists), len(states.states()), len(states.items())) == (30, 15, 20)
