"""Releases in SQL and in the artifact store."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.model.serving_model import PARTS
from headrace.model.text.encoder import TextEncoder
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.atomic import sha256
from headrace.runtime.errors import CorruptDataError, NotFoundError
from headrace.trainer.learner import Learner
from headrace.trainer.plan_rows import PlanChange
from headrace.trainer.ranker_learner import RankerLearner
from headrace.trainer.registry import (
    Assignment,
    Part,
    Registry,
    Release,
    ServingPlan,
    name_of,
    number_of,
    open_registry,
)
from headrace.trainer.releases import Releases, Watermark, checked_parts, manifest_of
from headrace.trainer.settings import TrainerSettings

_WATERMARK = Watermark("main", "main-1", 12, 34)


@pytest.fixture
def registry(sql_url: str):
    registry = open_registry(sql_url)
    yield registry
    registry.close()


def _release(number: int) -> Release:
    part = Part("config.json", "ab", 3)
    return Release(name_of(number), "", "main", "main-1", 8, 5, 6, "schema", (part,), {"loss": 0.5}, 7, "checksum")


def test_a_release_comes_back_as_it_was(registry: Registry) -> None:
    registry.add(_release(1))
    assert registry.release("r-000001") == _release(1)


def test_a_metric_that_is_no_number_comes_back_too(registry: Registry) -> None:
    registry.add(replace(_release(1), metrics={"loss": math.nan, "share": math.inf}))
    metrics = registry.release("r-000001").metrics
    assert (math.isnan(metrics["loss"]), metrics["share"]) == (True, math.inf)


def test_a_release_that_is_registered_serves_nobody(registry: Registry) -> None:
    registry.add(_release(1))
    assert registry.plan() == ServingPlan(0, None)


def test_the_plan_changes_with_growing_numbers(registry: Registry) -> None:
    for number in (1, 2):
        registry.add(_release(number))
    first = registry.change_plan(PlanChange(stable=1, shadow=2))
    second = registry.change_plan(PlanChange(canary=2, shadow=0, rollout="ro-000001", salt="s", share_bp=100))
    assert first == ServingPlan(1, _release(1), shadow=_release(2))
    assert second == ServingPlan(2, _release(1), _release(2), assignment=Assignment("ro-000001", "s", 100))
    assert registry.change_plan(PlanChange(stable=1)).sequence == registry.plan_sequence() == 2


def test_two_learners_at_once_never_get_the_same_number(sql_url: str) -> None:
    registries = [open_registry(sql_url) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda at: registries[at % 2].reserve_number(), range(20)))
    assert sorted(numbers) == list(range(1, 21))
    for registry in registries:
        registry.close()


def test_what_is_served_is_kept(registry: Registry) -> None:
    for number in range(1, 6):
        registry.add(replace(_release(number), lineage="other" if number == 1 else "main"))
    registry.change_plan(PlanChange(stable=2))
    assert registry.forget_beyond(2, "main") == ["r-000003"]
    assert [release.number for release in registry.releases(10)] == [5, 4, 2, 1]
    assert [release.number for release in registry.releases(10, before=4)] == [2, 1]
    newest = registry.newest_of("main")
    assert newest is not None
    assert newest.number == 5


def test_releases_go_with_the_space_that_they_name_but_what_is_served_stays(registry: Registry) -> None:
    for number, space in enumerate(("main-1", "main-1", "main-2", "main-3"), start=1):
        registry.add(replace(_release(number), space=space))
    registry.change_plan(PlanChange(stable=4))
    assert sorted(registry.forget_spaces(["main-1", "main-3"])) == ["r-000001", "r-000002"]
    assert registry.spaces() == {"main-2", "main-3"}


def test_the_tables_are_there_after_reopening(sql_url: str) -> None:
    first = open_registry(sql_url)
    first.add(_release(1))
    first.close()
    again = open_registry(sql_url)
    assert again.newest_number() == 1
    again.close()


@pytest.mark.parametrize("name", ["", "r-", "r-1", "r-00000x", "x-000001", "r-0000001"])
def test_a_name_that_is_none_is_not_found(name: str) -> None:
    with pytest.raises(NotFoundError):
        number_of(name)


def test_a_release_of_a_million_is_named_too() -> None:
    assert number_of(name_of(1_234_567)) == 1_234_567


def test_parts_are_written_once_and_read_with_their_checksum(
    tmp_path: Path, registry: Registry, settings: TrainerSettings
) -> None:
    releases = Releases(ArtifactStore(str(tmp_path / "artifacts")), registry, 2)
    parts = checked_parts("main-1", Learner(settings), RankerLearner(settings))
    release = releases.publish(parts, _WATERMARK, {"loss": 1.0})
    assert {part.name: releases.read(release, part.name) for part in release.parts} == parts
    manifest = (tmp_path / "artifacts" / "releases" / "r-000001" / "manifest.json").read_bytes()
    assert sha256(manifest) == release.checksum
    assert manifest == manifest_of(replace(release, checksum=""))
    (tmp_path / "artifacts" / "releases" / "r-000001" / "config.json").write_bytes(b"{}")
    with pytest.raises(CorruptDataError):
        releases.read(release, "config.json")


def test_a_release_over_a_pre_trained_encoder_carries_no_text_weights(
    settings: TrainerSettings, lengths: TextEncoder
) -> None:
    parts = checked_parts("main-1", Learner(settings, lengths), RankerLearner(settings))
    assert set(parts) == set(PARTS)
