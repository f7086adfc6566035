"""Releases in SQL and in the artifact store."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.model.serving_model import PARTS
from headrace.model.text.encoder import TextEncoder
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.atomic import sha256
from headrace.runtime.errors import CorruptDataError, NotFoundError
from headrace.trainer.learner import Learner
from headrace.trainer.ranker_learner import RankerLearner
from headrace.trainer.registry import Part, Registry, Release, name_of, number_of, open_registry
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


def test_the_plan_follows_the_newest_release_with_growing_numbers(registry: Registry) -> None:
    assert (registry.plan().sequence, registry.plan().stable) == (0, None)
    plans = [registry.add(_release(number)) for number in (1, 2)]
    assert [plan.sequence for plan in plans] == [1, 2]
    assert registry.plan() == plans[-1]


def test_what_is_served_is_kept(registry: Registry) -> None:
    for number in range(1, 5):
        registry.add(_release(number))
    assert sorted(registry.forget_beyond(2)) == ["r-000001", "r-000002"]
    assert [release.number for release in registry.releases(10)] == [4, 3]
    assert [release.number for release in registry.releases(10, before=4)] == [3]


def test_releases_go_with_the_space_that_they_name_but_what_is_served_stays(registry: Registry) -> None:
    for number, space in enumerate(("main-1", "main-1", "main-2", "main-3"), start=1):
        registry.add(replace(_release(number), space=space))
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
    release = releases.publish(parts, _WATERMARK, {"loss": 1.0}).stable
    assert release is not None
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
