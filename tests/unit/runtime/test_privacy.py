"""The suite's key, and what stands for people by it."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.runtime.confirmations import Confirmations
from headrace.runtime.erasures import DONE, Erasure, done_of, erasure_of, tombstone
from headrace.runtime.errors import CorruptDataError, NotFoundError
from headrace.runtime.eventlog import LoggedRecord, partition_of
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.privacy import Privacy, open_privacy
from headrace.runtime.settings import CommonSettings, SettingsError, load

PRIVACY = Privacy(b"a key")


def test_a_pseudonym_is_the_keyed_hash_of_the_user_key() -> None:
    # HMAC-SHA256, by `printf u:ann | openssl dgst -sha256 -hmac 'a key'`
    assert PRIVACY.pseudonym("u:ann") == "p:f458feeab35556c34d4b8f2997a52a8d"
    assert len(PRIVACY.digest("u:ann")) == 16
    assert PRIVACY.pseudonym("u:ann") != Privacy(b"another").pseudonym("u:ann")
    assert PRIVACY.pseudonym("u:ann") != PRIVACY.pseudonym("v:ann")
    assert PRIVACY.fingerprint != Privacy(b"another").fingerprint


def test_an_owner_is_half_of_the_digest() -> None:
    assert PRIVACY.owner("u:ann").to_bytes(8, "little", signed=True) == PRIVACY.digest("u:ann")[:8]


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    common = CommonSettings(data_dir=tmp_path / "data")
    first = open_privacy(common)
    assert open_privacy(common).pseudonym("u:1") == first.pseudonym("u:1")
    assert stat.S_IMODE((tmp_path / "data" / "privacy.key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["privacy.key"]


def test_processes_that_begin_at_once_have_the_same_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from headrace.runtime.privacy import open_privacy;"
        "from headrace.runtime.settings import CommonSettings; sys.stdin.readline();"
        "print(open_privacy(CommonSettings(data_dir=Path(sys.argv[1]))).fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert len({process.communicate("go\n")[0] for process in processes}) == 1


def test_a_given_key_goes_before_the_file_and_is_never_shown(tmp_path: Path) -> None:
    given = {"HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_PRIVACY_KEY": "sixteen letters!"}
    common = load(CommonSettings, given)
    assert open_privacy(common).fingerprint == Privacy(b"sixteen letters!").fingerprint
    assert not list(tmp_path.iterdir())
    assert "sixteen" not in repr(common)
    with pytest.raises(SettingsError, match=r"HEADRACE_PRIVACY_KEY=…: .*at least 16") as raised:
        load(CommonSettings, {"HEADRACE_PRIVACY_KEY": "too short"})
    assert "too short" not in str(raised.value)


def test_a_key_that_is_not_whole_or_not_there_is_told(tmp_path: Path) -> None:
    common = CommonSettings(data_dir=tmp_path)
    with pytest.raises(NotFoundError, match="no privacy key"):
        open_privacy(common, must_exist=True)
    (tmp_path / "privacy.key").write_bytes(b"half")
    with pytest.raises(CorruptDataError, match="holds 4 bytes"):
        open_privacy(common)


def _logged(offset: int, record) -> LoggedRecord:
    partition = partition_of(record.key)
    return LoggedRecord(
        offset, partition, 1, record.kind, record.key, record.event_id, record.time_us, record.payload, ""
    )


def test_a_tombstone_names_its_people_and_no_others_and_no_id() -> None:
    keys = {key: PRIVACY.digest(key) for key in ("u:ann", "v:phone")}
    record = tombstone("e", keys, 7, PRIVACY.fingerprint)
    erasure = erasure_of(_logged(9, record))
    assert (erasure.id, erasure.offset, erasure.time_us) == ("e", 9, 7)
    assert [erasure.names(PRIVACY, key) for key in ("u:ann", "v:phone", "u:phone", "u:bob")] == [
        True,
        True,
        False,
        False,
    ]
    assert erasure.owners == {PRIVACY.owner("u:ann"), PRIVACY.owner("v:phone")}
    assert b"ann" not in record.payload
    assert b"phone" not in record.payload


def test_a_person_in_a_named_partition_is_not_one_of_them() -> None:
    twin = next(key for at in range(10_000) if partition_of(key := f"u:{at}") == partition_of("u:ann"))
    erasure = Erasure("e", 1, 1, frozenset({PRIVACY.digest("u:ann")}), frozenset({partition_of("u:ann")}), "")
    assert not erasure.names(PRIVACY, twin)


async def test_a_word_survives_a_crash_and_is_sent_once_it_is_durable(tmp_path: Path) -> None:
    log = SqliteEventLog(tmp_path / "events.db")
    file = tmp_path / "erasures.json"
    Confirmations(file, "far", PRIVACY).note("e", 5, {"people": 2})
    words = Confirmations(file, "far", PRIVACY)
    # folded again after the crash, there was less left to erase
    words.note("e", 5, {"people": 0, "groups": 1})
    assert (words.are_due(4), words.are_due(5)) == (False, True)
    await words.send(log, 4)
    assert await log.read(0) == []
    await words.send(log, 5)
    assert not Confirmations(file, "far", PRIVACY).are_due(5)
    (record,) = await log.read(0, kinds=(DONE,))
    done = done_of(record)
    assert (done.erasure_id, done.consumer, dict(done.erased)) == ("e", "far", {"people": 2, "groups": 1})
    await log.close()
