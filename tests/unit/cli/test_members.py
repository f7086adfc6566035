"""What each process of a suite is told, with and without a lineage that is tried beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.cli.members import candidate_of, environment_of
from headrace.cli.suite_file import MEMBERS, SERVICES
from headrace.runtime.errors import InvalidRequestError, SettingsError

DATA = Path("/shop")
ADDRESSES = {member: f"127.0.0.1:{7401 + place}" for place, member in enumerate(MEMBERS)}
FIVE = {member: ADDRESSES[member] for member in SERVICES}


def _told(member: str, addresses: dict[str, str], **given: str) -> dict[str, str]:
    told = environment_of(member, DATA, addresses, given, {"blocks": "2"})
    return {name: value for name, value in told.items() if name.startswith("HEADRACE_")}


def test_the_second_learner_is_the_first_but_for_its_lineage_and_what_is_tried() -> None:
    first, second = _told("trainer", ADDRESSES), _told("trainer-candidate", ADDRESSES)
    assert dict(second.items() - first.items()) == {
        "HEADRACE_TRAINER_BESIDE": "true",
        "HEADRACE_TRAINER_BLOCKS": "2",
        "HEADRACE_TRAINER_LINEAGE": "candidate",
        "HEADRACE_TRAINER_PORT": "7407",
        "HEADRACE_TRAINER_ROLE": "learn",
    }


def test_the_stable_ranker_knows_the_canary_and_the_canary_nobody() -> None:
    stable, canary = _told("ranker", ADDRESSES), _told("ranker-canary", ADDRESSES)
    assert stable["HEADRACE_RANKER_CANARY_ADDRESS"] == "127.0.0.1:7406"
    assert (canary["HEADRACE_RANKER_TRACK"], canary["HEADRACE_RANKER_CANARY_ADDRESS"]) == ("canary", "")
    assert "HEADRACE_RANKER_CANARY_ADDRESS" not in _told("ranker", FIVE)


def test_people_are_forgotten_when_the_second_learner_says_so_too() -> None:
    consumers = "HEADRACE_INGEST_FORGET_CONSUMERS"
    assert consumers not in _told("ingest", FIVE)
    assert _told("ingest", ADDRESSES)[consumers] == "feature-store,trainer,trainer-candidate"
    assert _told("ingest", ADDRESSES, **{consumers: "trainer"})[consumers] == "trainer,trainer-candidate"


def test_what_is_given_goes_before_what_a_trial_is_told() -> None:
    assert _told("trainer", FIVE)["HEADRACE_ROLLOUT_QUIET_S"] == "10"
    assert _told("trainer", FIVE, HEADRACE_ROLLOUT_QUIET_S="0")["HEADRACE_ROLLOUT_QUIET_S"] == "0"


def test_settings_to_try_are_named() -> None:
    assert candidate_of(["blocks=2", "mirrored=false"]) == {"blocks": "2", "mirrored": "false"}


@pytest.mark.parametrize("given", ["blocks", "block=2", "role=all", "lineage=main"])
def test_what_cannot_be_tried_is_refused(given: str) -> None:
    with pytest.raises(InvalidRequestError, match="--candidate"):
        candidate_of([given])


def test_a_value_that_does_not_fit_is_told_before_anything_starts() -> None:
    with pytest.raises(SettingsError, match="HEADRACE_TRAINER_BLOCKS='0'"):
        candidate_of(["blocks=0"])
