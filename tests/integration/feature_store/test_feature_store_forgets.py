"""The feature store forgets people: state, open visits, row files and older snapshots, in either tier."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.feature_store.tier_opening import open_user_tier
from headrace.runtime.erasures import DONE, done_of, tombstone
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.privacy import Privacy, open_privacy
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2, log_pb2
from headrace.v1 import feature_store_pb2 as pb
from headrace.v1.log_pb2 import ErasureDone

Make = Callable[..., Record]
# a snapshot now and then, and with it a row file
BUSY = {"snapshot_every_s": 0.05, "row_sample_rate": 1.0}
USERS = ("u:anna-first", "u:bob", "v:device", "u:carl")


@pytest.fixture
def privacy(tmp_path: Path) -> Privacy:
    return open_privacy(CommonSettings(data_dir=tmp_path))


@pytest.fixture(params=["in process", "redis"])
def common_settings(request: pytest.FixtureRequest) -> dict[str, object]:
    url = request.getfixturevalue("shared_redis").url() if request.param == "redis" else ""
    return {**BUSY, "redis_url": url}


def visits(event: Make, first: int, users: tuple[str, ...], rounds: int = 3) -> list[Record]:
    """Visits of people, each over before the next: their groups are closed, but for the last round's."""
    return [
        event(first + number, 40 * number + offset, [number % 7, 1 + number % 5], user=user)
        for number, (_, offset, user) in enumerate(
            (round_, place, user) for round_ in range(rounds) for place, user in enumerate(users)
        )
    ]


async def forget(log: SqliteEventLog, privacy: Privacy, *user_keys: str, name: str = "e") -> int:
    """The offset of a tombstone."""
    keys = {user_key: privacy.digest(user_key) for user_key in user_keys}
    (appended,) = await log.append([tombstone(name, keys, 2 * 10**15, privacy.fingerprint)])
    return appended.offset


async def said(log: SqliteEventLog, count: int = 1) -> list[ErasureDone]:
    async with asyncio.timeout(20):
        while len(found := await log.read(0, kinds=(DONE,))) < count:
            await log.wait((await log.end())[0], 0.05)
    return [done_of(record) for record in found]


async def state_of(stub, user_key: str, offset: int) -> pb.GetUserStateResponse:
    state = await stub.GetUserState(pb.GetUserStateRequest(user_key=user_key, min_offset=offset), timeout=10)
    state.offset = 0
    return state


async def groups_of(stub, until: int) -> list[str]:
    request = pb.GetTrainingRowsRequest(until_offset=until, up_to_folded=True)
    return [user_key async for part in stub.GetTrainingRows(request) for user_key in part.user_keys]


def holding(folder: Path, text: bytes) -> list[str]:
    return [path.name for path in sorted((folder / "feature-store").rglob("*")) if text in _bytes(path)]


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


async def test_a_person_leaves_state_visits_rows_files_and_snapshots_and_others_stay(
    serve, event_log: SqliteEventLog, event: Make, privacy: Privacy, common_settings, tmp_path: Path
) -> None:
    async with serve(**common_settings) as stub:
        end = (await event_log.append(visits(event, 1, USERS)))[-1].offset
        before = {user: await state_of(stub, user, end) for user in USERS}
        async with asyncio.timeout(20):
            while not list((tmp_path / "feature-store/snapshots").glob("state-*")):
                await state_of(stub, "u:bob", end)
        groups = await groups_of(stub, end)
        url = str(common_settings["redis_url"])
        assert holding(tmp_path, b"u:anna-first")
        assert bool(_traces(url, "u:anna-first")) == bool(url)
        stone = await forget(event_log, privacy, "u:anna-first", "v:device")
        (word,) = await said(event_log)

        assert (word.consumer, word.key_fingerprint) == ("feature-store", privacy.fingerprint)
        assert word.erased["people"] == 2
        assert word.erased["training_groups"] == sum(user in ("u:anna-first", "v:device") for user in groups) > 0
        for user in ("u:bob", "u:carl"):
            assert await state_of(stub, user, stone) == before[user]
        for user in ("u:anna-first", "v:device"):
            gone = await state_of(stub, user, stone)
            assert (gone.history, gone.features.strip(b"\0")) == (pb.UserHistory(), b"")
        kept = [user for user in groups if user not in ("u:anna-first", "v:device")]
        assert await groups_of(stub, stone) == kept
        assert holding(tmp_path, b"u:anna-first") == holding(tmp_path, b"v:device") == []
        assert _traces(url, "u:anna-first") == _traces(url, "v:device") == 0
        digest = await _digest(stub)
    async with serve(**common_settings) as stub:
        assert await _digest(stub) == digest
        assert await groups_of(stub, stone) == kept


def _traces(redis_url: str, user_key: str) -> int:
    """At how many places a Redis knows a person."""
    tier = open_user_tier(redis_url)
    try:
        return tier.traces_of(user_key)
    finally:
        tier.close()


async def _digest(stub) -> str:
    return (await stub.GetFeatureStoreStatus(pb.GetFeatureStoreStatusRequest(with_digest=True))).state_digest


async def test_joined_devices_and_facts_about_the_person_go_too(
    serve, event_log: SqliteEventLog, event: Make, privacy: Privacy, tmp_path: Path
) -> None:
    about = common_pb2.DatedFact(entity_id="anna-first", entity_kind=common_pb2.ENTITY_KIND_USER, name="campaign")
    about.campaign_id, about.fact_id = "spring", "f"
    fact = log_pb2.LoggedDatedFact(fact=about, ingest_time_us=1).SerializeToString()
    joined = log_pb2.IdentityChange(device_key="v:tablet", user_key="u:anna-first", joined=True).SerializeToString()
    async with serve(**BUSY) as stub:
        others = [event(1, 0, [3], user="u:bob"), event(2, 1, [4], user="v:tablet")]
        records = [Record("dated-fact", "u:anna-first", "f", 1, fact), *others]
        records.append(Record("identity-change", "u:anna-first", "i", 1, joined))
        end = (await event_log.append(records))[-1].offset
        assert len((await state_of(stub, "u:anna-first", end)).history.event_types) == 1
        async with asyncio.timeout(20):
            while not holding(tmp_path, b"anna-first"):
                await state_of(stub, "u:bob", end)
        stone = await forget(event_log, privacy, "u:anna-first")
        await said(event_log)
        assert holding(tmp_path, b"anna-first") == []
        # the device was not named: what was done on it stays, and nobody is joined to it
        assert len((await state_of(stub, "v:tablet", stone)).history.event_types) == 1
        assert not (await state_of(stub, "u:anna-first", stone)).history.event_types


async def test_one_who_comes_back_begins_anew(
    serve, event_log: SqliteEventLog, event: Make, privacy: Privacy, common_settings
) -> None:
    async with serve(**common_settings) as stub:
        await event_log.append(visits(event, 1, USERS))
        await forget(event_log, privacy, "u:anna-first")
        end = (await event_log.append([event(100, 900, [3], user="u:anna-first")]))[-1].offset
        state = await state_of(stub, "u:anna-first", end)
        assert len(state.history.event_types) == 1


async def test_what_a_crash_left_unsaid_is_said_at_the_next_start(
    serve, event_log: SqliteEventLog, event: Make, privacy: Privacy, tmp_path: Path
) -> None:
    # snapshots at the end, and where somebody is forgotten
    settings = BUSY | {"snapshot_every_s": 600.0}
    async with serve(**settings) as stub:
        end = (await event_log.append(visits(event, 1, USERS)))[-1].offset
        await state_of(stub, "u:bob", end)
    note = tmp_path / "feature-store" / "erasures.json"
    async with serve(**settings) as stub:
        await forget(event_log, privacy, "u:anna-first")
        (word,) = await said(event_log)
        assert holding(tmp_path, b"u:anna-first") == []
        assert word.erased["people"] == 1
    assert note.read_bytes() == b"{}"
    # as if the word had not been sent
    note.write_text('{"e2": {"offset": 5, "erased": {"people": 1}}}')
    async with serve(**settings):
        words = await said(event_log, 2)
    assert [(one.erasure_id, dict(one.erased)) for one in words[1:]] == [("e2", {"people": 1})]


async def test_another_key_finds_nobody_and_its_name_is_in_the_word(
    serve, event_log: SqliteEventLog, event: Make, privacy: Privacy
) -> None:
    async with serve(**BUSY) as stub:
        await event_log.append(visits(event, 1, USERS))
        stone = await forget(event_log, Privacy(b"another one"), "u:anna-first")
        (word,) = await said(event_log)
        assert (word.key_fingerprint, word.erased["people"]) == (privacy.fingerprint, 0)
        assert (await state_of(stub, "u:anna-first", stone)).history.event_types
