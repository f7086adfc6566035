from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.runtime.settings import CommonSettings, ServingSettings, SettingsError, env_prefix, load


class WaterSettings(ServingSettings):
    model_config = SettingsConfigDict(env_prefix="HEADRACE_INDEX_", frozen=True)

    depth: int = Field(3, ge=1)
    width: float = Field(1.0, gt=0)


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load(WaterSettings, {})
    assert (settings.depth, settings.host, settings.port) == (3, "127.0.0.1", 0)


def test_values_come_from_the_given_environment() -> None:
    settings = load(WaterSettings, {"HEADRACE_INDEX_DEPTH": "7", "HEADRACE_INDEX_HOST": "0.0.0.0", "HOME": "/x"})
    assert (settings.depth, settings.host) == (7, "0.0.0.0")


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_INDEX_DEPTH", "9")
    assert load(WaterSettings).depth == 9


def test_a_given_environment_is_the_only_one_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_INDEX_DEPTH", "9")
    assert load(WaterSettings, {}).depth == 3
    assert WaterSettings().depth == 3


def test_a_name_that_no_part_reads_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"unknown variable HEADRACE_INDEX_DEPHT.*HEADRACE_INDEX_DEPTH"):
        load(WaterSettings, {"HEADRACE_INDEX_DEPHT": "7"})
    with pytest.raises(SettingsError, match="unknown variable HEADRACE_COLOUR"):
        load(WaterSettings, {"HEADRACE_COLOUR": "blue"})


def test_common_names_and_those_of_other_services_pass() -> None:
    given = {"HEADRACE_LOG_LEVEL": "DEBUG", "HEADRACE_RANKER_ANYTHING": "1", "HEADRACE_FEATURE_STORE_PORT": "x"}
    assert load(WaterSettings, given).depth == 3
    assert load(CommonSettings, given | {"HEADRACE_DATA_DIR": "/d"}).data_dir == Path("/d")


def test_every_value_that_does_not_fit_is_named_with_what_was_given() -> None:
    with pytest.raises(SettingsError) as refused:
        load(WaterSettings, {"HEADRACE_INDEX_DEPTH": "deep", "HEADRACE_INDEX_WIDTH": "-2"})
    assert "HEADRACE_INDEX_DEPTH='deep'" in str(refused.value)
    assert "HEADRACE_INDEX_WIDTH='-2'" in str(refused.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(WaterSettings, {}).depth = 4  # type: ignore[misc]


def test_a_service_name_becomes_its_prefix() -> None:
    assert env_prefix("feature-store") == "HEADRACE_FEATURE_STORE_"
