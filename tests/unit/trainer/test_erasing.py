"""A person leaves everything that the trainer keeps of people; nobody else's is touched, no crash changes that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.runtime.erasures import Erasure
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.eventlog import partition_of
from headrace.runtime.privacy import Privacy
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.lineage import Lineage
from headrace.trainer.ranker_learner import Groups
from headrace.trainer.records import Searched, Shown, Slice
from headrace.trainer.settings import TrainerSettings

PRIVACY = Privacy(b"the key of this suite")
GONE = "u:0-2"
NOW_US = 1_300_000_000_000_000


def erasure(*user_keys: str, offset: int = 1_000, time_us: int = 2 * NOW_US, privacy: Privacy = PRIVACY) -> Erasure:
    digests = frozenset(map(privacy.digest, user_keys))
    partitions = frozenset(map(partition_of, user_keys))
    return Erasure("e-1", offset, time_us, digests, partitions, privacy.fingerprint)


def tombstone(records: Slice, *user_keys: str) -> Slice:
    offset = records.until + 1
    return replace(Slice.empty(records.until, offset), erasures=(erasure(*user_keys, offset=offset),))


def lineage_at(folder: Path, settings: TrainerSettings) -> Lineage:
    delta_log = DeltaLog(folder / "deltas.db", "main", settings.dimension)
    return Lineage(settings, delta_log, Checkpoints(folder / "checkpoints"), privacy=PRIVACY)


def shown(user_key: str, token: str) -> Shown:
    none = np.zeros((2, len(CANDIDATE_FEATURES)), np.float32)
    return Shown(token, user_key, np.array([1, 2], np.uint32), none, FEATURE_SCHEMA, NOW_US)


def groups_of(*user_keys: str) -> Groups:
    owners = np.array([PRIVACY.owner(key) for key in user_keys], np.int64)
    count = len(owners)
    features = np.random.default_rng(7).normal(size=(2 * count, len(CANDIDATE_FEATURES))).astype(np.float32)
    labels = np.tile(np.array([1, 0], np.uint8), count)
    return Groups(features, labels, np.ones(2 * count, np.float32), np.full(count, 2), owners)


def searching(records: Slice, user_key: str) -> Slice:
    """The slice, after the person looked for something."""
    times = records.events.times_us
    return replace(records, searches=(Searched(user_key, "a mug", int(times.min())),))


@pytest.fixture
def settings(settings: TrainerSettings) -> TrainerSettings:
    return settings.model_copy(update={"gauge_windows": 50})


@pytest.fixture
def learned(tmp_path: Path, settings: TrainerSettings, shop: object) -> tuple[Lineage, Slice]:
    """A lineage that has learned from six people, of whom one searched and two were shown something."""
    lineage = lineage_at(tmp_path, settings)
    records = searching(replace(shop.visits(0, 6), products=shop.products()), GONE)
    records = replace(records, impressions=(shown(GONE, "a"), shown("u:0-3", "b")))
    lineage.learn(records)
    lineage.learn_rows(groups_of(GONE, "u:0-1", GONE), 5)
    return lineage, records


def _arrays(lineage: Lineage) -> dict[str, np.ndarray]:
    parts = {"learner": lineage.learner.arrays(), "ranker": lineage.ranker.arrays()}
    return {f"{part}.{name}": value.copy() for part, arrays in parts.items() for name, value in arrays.items()}


def test_everything_of_the_person_goes_and_is_counted(learned: tuple[Lineage, Slice]) -> None:
    lineage, records = learned
    lineage.erase(tombstone(records, GONE, "v:never seen"))
    erased = lineage.erased["e-1"]
    assert erased["histories"] == 1
    assert erased["replayed_windows"] > 0
    assert erased["gauge_windows"] > 0
    assert erased["searches"] > 0
    assert (erased["ranker_groups"], erased["waiting_impressions"]) == (2, 1)
    arrays = _arrays(lineage)
    owner = PRIVACY.owner(GONE)
    assert not any((values == owner).any() for name, values in arrays.items() if values.dtype == np.int64)
    assert not any(GONE.encode() in values.tobytes() for values in arrays.values())
    assert b"u:0-3" in arrays["learner.sequences.users"].tobytes()


def test_nothing_of_anybody_else_changes_and_no_weight_does(learned: tuple[Lineage, Slice]) -> None:
    lineage, records = learned
    before = _arrays(lineage)
    lineage.erase(tombstone(records, GONE))
    after = _arrays(lineage)

    rows = np.arange(6) != 2
    for name in ("ordinals", "times_us", "event_types", "channels", "totals_U", "owners_U"):
        column = f"learner.sequences.{name}"
        np.testing.assert_array_equal(after[column][rows], before[column][rows])
        assert not after[column][2].any()
    kept = before["learner.reservoir.owners"] != PRIVACY.owner(GONE)
    np.testing.assert_array_equal(after["learner.reservoir.ordinals"], before["learner.reservoir.ordinals"][kept])
    touched = ("learner.sequences.", "learner.reservoir.", "learner.gauge.", "learner.searches.", "ranker.kept.")
    for name, values in after.items():
        if not name.startswith(touched):
            np.testing.assert_array_equal(values, before[name], err_msg=name)


def test_an_erasure_of_nobody_known_changes_nothing_that_is_learned_later(
    tmp_path: Path, settings: TrainerSettings, shop: object
) -> None:
    digests = []
    for name, people in (("with", ("u:stranger",)), ("without", ())):
        lineage = lineage_at(tmp_path / name, settings)
        first = replace(shop.visits(0, 6), products=shop.products())
        lineage.learn(first)
        if people:
            lineage.erase(tombstone(first, *people))
        lineage.learn(shop.visits(1, 6, after=lineage.standing.offset))
        digests.append(lineage.look().digest)
    assert digests[0] == digests[1]


def test_one_who_comes_back_is_somebody_new(learned: tuple[Lineage, Slice], shop: object) -> None:
    lineage, records = learned
    lineage.erase(tombstone(records, GONE))
    # the same six keys again
    lineage.learn(replace(shop.visits(0, 6), after=lineage.standing.offset, until=lineage.standing.offset + 36))
    arrays = lineage.learner.arrays()
    assert arrays["sequences.totals_U"].tolist() == [12, 12, 0, 12, 12, 12, 6]


@pytest.mark.parametrize("crash", ["before the checkpoint", "after the checkpoint"])
def test_a_crash_around_an_erasure_leads_to_the_same_state(
    tmp_path: Path, settings: TrainerSettings, shop: object, crash: str
) -> None:
    lineage = lineage_at(tmp_path, settings)
    first = replace(shop.visits(0, 6), products=shop.products())
    lineage.learn(first)
    lineage.checkpoint()
    stone = tombstone(first, GONE)
    lineage.erase(stone)
    if crash == "after the checkpoint":
        lineage.forget_older()
    second = shop.visits(1, 6, after=stone.until)
    lineage.learn(second)
    before = _arrays(lineage)

    again = lineage_at(tmp_path, settings)
    known = {(records.after, records.until): records for records in (first, stone, second)}
    for entry in again.load():
        assert again.relearn(entry, known[entry.after, entry.until])
    after = _arrays(again)
    assert again.standing.offset == second.until
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg=name)


def test_no_older_checkpoint_is_left(tmp_path: Path, learned: tuple[Lineage, Slice]) -> None:
    lineage, records = learned
    lineage.checkpoint()
    lineage.erase(tombstone(records, GONE))
    held = (tmp_path / "checkpoints").glob("*.safetensors")
    assert any(GONE.encode() in path.read_bytes() for path in held)
    lineage.forget_older()
    (left,) = (tmp_path / "checkpoints").glob("*.safetensors")
    assert GONE.encode() not in left.read_bytes()


def test_what_was_on_its_way_is_not_learned(learned: tuple[Lineage, Slice], shop: object) -> None:
    lineage, records = learned
    lineage.erase(tombstone(records, GONE))
    late = groups_of(GONE, "u:0-1", GONE)
    left = lineage.unforgotten(late, np.array([NOW_US, NOW_US, 3 * NOW_US]))
    # the last began after the erasure: a new person's
    assert left.owners_G.tolist() == [PRIVACY.owner("u:0-1"), PRIVACY.owner(GONE)]
    after = lineage.standing.offset
    lineage.learn(replace(Slice.empty(after, after + 1), impressions=(shown(GONE, "late"),)))
    assert b"late" not in lineage._impressions.arrays()["facts"].tobytes()


def test_another_privacy_key_finds_nobody_and_says_so(
    learned: tuple[Lineage, Slice], caplog: pytest.LogCaptureFixture
) -> None:
    lineage, records = learned
    stone = replace(tombstone(records), erasures=(erasure(GONE, privacy=Privacy(b"another key")),))
    lineage.erase(stone)
    assert lineage.erased["e-1"]["histories"] == 0
    assert "privacy_key_differs" in caplog.messages


def test_a_state_that_broke_off_is_not_kept_as_forgotten(learned: tuple[Lineage, Slice]) -> None:
    lineage, _ = learned
    lineage._is_whole = False
    with pytest.raises(FailedPreconditionError, match="broke off"):
        lineage.forget_older()
