"""Two lineages that learn from one log: alike with mirrored training, each from its own arm without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.model.arms import CANARY, STABLE, arm_of
from headrace.model.attribution import Tokens
from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.runtime.eventlog import EventLog, Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.privacy import Privacy
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.lineage import Lineage
from headrace.trainer.log_slices import read_slice
from headrace.trainer.own_releases import OwnReleases
from headrace.trainer.settings import TrainerSettings
from headrace.v1 import common_pb2, log_pb2

_PRIVACY = Privacy(b"k" * 32)
_TOKENS = Tokens(_PRIVACY.derived("attribution tokens"))
_START_US = 1_300_000_000_000_000
_MINUTE_US = 60_000_000
_RELEASES = {STABLE: "r-000001", CANARY: "r-000002"}
_PEOPLE, _ITEMS, _SHOWN = 200, 20, 6
_SHARE_BP = 500


def _product(ordinal: int) -> Record:
    product = common_pb2.Product(id=f"p{ordinal}", title=f"mug number{ordinal}")
    change = log_pb2.ProductChange(ordinal=ordinal, product=product, change_time_us=_START_US)
    return Record("product-change", f"p{ordinal}", f"p-{ordinal}", _START_US, change.SerializeToString())


def _shown(key: str, token: str, release: str, time_us: int, rng: np.random.Generator) -> tuple[Record, int]:
    """A list, and the item of it that the person looks at next: the one with the greatest first feature."""
    ordinals = rng.choice(_ITEMS, _SHOWN, replace=False).astype("<u4")
    features = rng.standard_normal((_SHOWN, len(CANDIDATE_FEATURES))).astype("<f4")
    impression = log_pb2.Impression(
        attribution_token=token,
        user_key=key,
        release=release,
        item_ordinals=ordinals.tobytes(),
        features=common_pb2.Matrix(rows=_SHOWN, columns=features.shape[1], values=features.tobytes()),
        feature_schema=FEATURE_SCHEMA,
        time_us=time_us,
    )
    record = Record("impression", key, f"i-{key}-{time_us}", time_us, impression.SerializeToString())
    return record, int(ordinals[features[:, 0].argmax()])


def _looked(key: str, token: str, ordinal: int, time_us: int) -> Record:
    event = common_pb2.UserEvent(event_type="detail-page-view", user_id=key[2:], attribution_token=token)
    logged = log_pb2.LoggedUserEvent(event=event, user_key=key, item_ordinals=[ordinal], event_time_us=time_us)
    return Record("user-event", key, f"e-{key}-{time_us}", time_us, logged.SerializeToString())


async def _write_shop(log: EventLog) -> None:
    """Everybody is shown two lists by the release of their arm, and does something after each."""
    rng = np.random.default_rng(7)
    records = [_product(ordinal) for ordinal in range(_ITEMS)]
    for person in range(_PEOPLE):
        key, at = f"u:{person}", _START_US + person * _MINUTE_US
        release = _RELEASES[arm_of("ro-000001", _SHARE_BP, key)]
        for time_us in (at, at + _MINUTE_US // 2):
            token = _TOKENS.new(release=release, user_key=key, time_us=time_us)
            record, liked = _shown(key, token, release, time_us, rng)
            records += [record, _looked(key, token, liked, time_us + 1_000_000)]
    await log.append(records)


@pytest.fixture
def lineage_of(tmp_path: Path, settings: TrainerSettings) -> Callable[..., Lineage]:
    def made(name: str, release: str, is_mirrored: bool) -> Lineage:
        folder = tmp_path / name
        own = OwnReleases(folder / "own-releases.db")
        own.add(release)
        mine = settings.model_copy(update={"lineage": name, "mirrored": is_mirrored})
        delta_log = DeltaLog(folder / "deltas.db", name, settings.dimension)
        return Lineage(mine, delta_log, Checkpoints(folder / "checkpoints"), privacy=_PRIVACY, own_releases=own)

    return made


async def _learned(log: EventLog, lineages: list[Lineage]) -> None:
    end, _ = await log.end()
    for after in range(0, end, 250):
        records = await read_slice(log, after, min(after + 250, end))
        for lineage in lineages:
            lineage.learn(records)
    for lineage in lineages:
        lineage.send_drifted()


def _greatest_difference(one: Lineage, other: Lineage) -> float:
    """Over the whole state of both learners: weights, optimisers, replay, counts."""
    parts = ((one.learner.arrays(), other.learner.arrays()), (one.ranker.arrays(), other.ranker.arrays()))
    assert all(mine.keys() == theirs.keys() for mine, theirs in parts)
    return max(_difference(mine[name], theirs[name]) for mine, theirs in parts for name in mine)


def _difference(mine: np.ndarray, theirs: np.ndarray) -> float:
    if np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f"):
        return 0.0
    if mine.shape != theirs.shape or mine.dtype.kind != "f":
        return float("inf")
    return float(np.abs(np.nan_to_num(mine) - np.nan_to_num(theirs)).max())


@pytest.mark.parametrize("is_mirrored", [True, False])
async def test_identical_arms_end_alike_when_training_is_mirrored_and_only_then(
    tmp_path: Path, lineage_of: Callable[..., Lineage], is_mirrored: bool
) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    await _write_shop(log)
    many = lineage_of("main", _RELEASES[STABLE], is_mirrored)
    few = lineage_of("candidate", _RELEASES[CANARY], is_mirrored)
    await _learned(log, [many, few])
    await log.close()
    assert many.ranker.rows > 0
    if is_mirrored:
        assert _greatest_difference(many, few) == 0
        assert many.look().digest == few.look().digest
    else:
        assert _greatest_difference(many, few) > 0
        assert many.look().digest != few.look().digest
        # the arm of few people is left with few people's lists
        assert 0 < few.ranker.rows < 0.15 * many.ranker.rows


async def test_without_mirrored_training_forged_and_absent_tokens_are_nobodys_and_learned_by_all(
    tmp_path: Path, lineage_of: Callable[..., Lineage]
) -> None:
    log = SqliteEventLog(tmp_path / "log.db")
    forged = Tokens(b"another key" * 3).new(release=_RELEASES[CANARY], user_key="u:1", time_us=1)
    looks = [("", 1), (forged, 2), (_TOKENS.new(release="r-000009", user_key="u:1", time_us=1), 3)]
    records = [_looked("u:1", token, at, _START_US + at) for token, at in looks]
    await log.append([*(_product(at) for at in range(5)), *records])
    lineage = lineage_of("main", _RELEASES[STABLE], is_mirrored=False)
    await _learned(log, [lineage])
    await log.close()
    counts = lineage.learner.arrays()["admission.met_N"][:5]
    assert counts.tolist() == [0, 1, 1, 0, 0]


def test_own_releases_are_known_for_good(tmp_path: Path) -> None:
    first = OwnReleases(tmp_path / "own.db")
    first.add("r-000042")
    first.add("r-000042")
    first.close()
    again = OwnReleases(tmp_path / "own.db")
    assert "r-000042" in again
    assert "r-000043" not in again
    again.close()
