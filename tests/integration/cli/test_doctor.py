"""What `headrace doctor` says of real folders and databases."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from benchmarks.kafka_mock import KafkaMock
from benchmarks.redis_server import RedisServer
from headrace.cli.doctor.clock import clock
from headrace.cli.doctor.finding import Level
from headrace.cli.main import app
from headrace.cli.suite_file import ServiceEntry, write_entries
from headrace.feature_store.redis_rows import Tag
from headrace.feature_store.tier_opening import open_user_tier
from headrace.ingest.storage import open_store
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.kafka_url import kafka_url
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings


def doctor(folder: Path, **environment: str) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """The exit status, and level, finding and remedy by part."""
    answer = CliRunner().invoke(app, ["doctor", "--data-dir", str(folder), "--json"], env=environment)
    findings = json.loads(answer.stdout)["findings"]
    return answer.exit_code, {one["part"]: (one["level"], one["found"], one["remedy"]) for one in findings}


async def _begin(folder: Path, url: str = "") -> None:
    log = open_event_log(CommonSettings(data_dir=folder, event_log_url=url))
    await log.append([Record("user-event", "u:1", str(number), 1_000, b"x" * 1_000) for number in range(50)])
    await log.close()
    store = open_store(url, folder / "ingest")
    await store.migrate()
    await store.close()


def begin(folder: Path, url: str = "") -> None:
    asyncio.run(_begin(folder, url))


def test_a_sound_folder_has_nothing_wrong(tmp_path: Path) -> None:
    begin(tmp_path)
    code, found = doctor(tmp_path)
    assert code == 0
    assert {level for level, *_ in found.values()} <= {"ok", "warning"}
    assert "50 records up to offset 50, intact" in found["event log"][1]
    assert found["catalogue"][0] == "ok"
    assert found["registry"][1] == "SQLite, not begun yet"
    assert "a write is durable after" in found["sync"][1]


def test_looking_makes_nothing(tmp_path: Path) -> None:
    doctor(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_log_is_found(tmp_path: Path) -> None:
    begin(tmp_path)
    data = bytearray((tmp_path / "events.db").read_bytes())
    # a page of the table, not the header
    data[8_192:8_400] = b"\xff" * 208
    (tmp_path / "events.db").write_bytes(data)
    code, found = doctor(tmp_path)
    assert code == 1
    assert found["event log"][0] == "failure"
    assert found["event log"][2] == "restore it from a backup"


def test_settings_that_do_not_fit_are_told_for_the_service_that_reads_them(tmp_path: Path) -> None:
    code, found = doctor(tmp_path, HEADRACE_INGEST_PORT="many")
    assert code == 1
    assert "HEADRACE_INGEST_PORT='many'" in found["settings of ingest"][1]
    assert "event log" not in found


def test_tables_of_an_older_version_are_a_warning(tmp_path: Path) -> None:
    begin(tmp_path)
    with sqlite3.connect(tmp_path / "ingest" / "catalogue.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0000'")
    code, found = doctor(tmp_path)
    assert code == 0
    assert found["catalogue"][0] == "warning"
    assert found["catalogue"][1].startswith("tables at 0000, this version needs ")


def test_a_server_is_asked_for_its_version_its_clock_and_its_tables(tmp_path: Path, postgres_url: str) -> None:
    begin(tmp_path, postgres_url)
    urls = dict.fromkeys(("HEADRACE_EVENT_LOG_URL", "HEADRACE_INGEST_DATABASE_URL"), postgres_url)
    code, found = doctor(tmp_path, **urls)
    assert code == 0
    assert found["event log"][1].startswith("PostgreSQL ")
    assert found["event log's clock"][0] == "ok"
    assert found["catalogue"][1].startswith("postgresql, tables at ")


def test_a_server_that_forgets_is_a_failure(tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET full_page_writes = off")
        admin.execute("SELECT pg_reload_conf()")
        try:
            _until_off(postgres_url)
            code, found = doctor(tmp_path, HEADRACE_EVENT_LOG_URL=postgres_url)
        finally:
            admin.execute("ALTER SYSTEM RESET full_page_writes")
            admin.execute("SELECT pg_reload_conf()")
    assert code == 1
    assert "runs with full_page_writes off" in found["event log"][1]


def _until_off(url: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with psycopg.connect(url) as database:
            row = database.execute("SHOW full_page_writes").fetchone()
        if row == ("off",):
            return
        time.sleep(0.02)
    raise AssertionError("the server did not take the setting")


def test_a_server_that_is_away_is_a_failure_in_one_sentence(tmp_path: Path) -> None:
    code, found = doctor(tmp_path, HEADRACE_EVENT_LOG_URL="postgresql://shop@127.0.0.1:1/events")
    assert code == 1
    level, sentence, _ = found["event log"]
    assert level == "failure"
    assert sentence.startswith("PostgreSQL does not answer: ")
    assert "\n" not in sentence


def test_services_that_do_not_answer_are_named(tmp_path: Path) -> None:
    write_entries(tmp_path, {"ingest": ServiceEntry("127.0.0.1:1", 0, "")})
    code, found = doctor(tmp_path)
    assert code == 1
    assert found["ingest"][1].startswith("does not answer at 127.0.0.1:1: UNAVAILABLE")


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(0, Level.OK), (5, Level.WARNING), (-5, Level.WARNING), (90, Level.FAILURE)]
)
def test_clocks_that_disagree_are_found(ahead_s: float, level: Level) -> None:
    assert clock("its clock", time.time() + ahead_s).level is level


def test_a_topic_is_looked_at_and_not_made(tmp_path: Path, shared_kafka: KafkaMock) -> None:
    one, three = shared_kafka.new_topic(), shared_kafka.new_topic(partitions=3)
    missing = one.partition("?")[0].rpartition("/")[0] + "/nowhere"
    found = {
        url: doctor(tmp_path, HEADRACE_EVENT_LOG_URL=url)[1]["event log"]
        for url in (one, three, missing, missing, "kafka://127.0.0.1:1/shop")
    }
    assert found[one][:2] == ("ok", f"{kafka_url(one)}: one partition, 1 in-sync replicas")
    assert found[three][0] == "failure"
    assert "has 3 partitions" in found[three][1]
    assert found[missing][0] == "ok"
    assert "is not begun yet" in found[missing][1]
    assert found["kafka://127.0.0.1:1/shop"][0] == "failure"
    assert "no broker answers" in found["kafka://127.0.0.1:1/shop"][1]


def test_the_redis_of_users_is_asked_for_version_settings_and_whose_people_it_holds(
    tmp_path: Path, own_redis: RedisServer
) -> None:
    url = own_redis.url()

    def looked_at(redis_url: str) -> dict[str, tuple[str, str, str]]:
        found = doctor(tmp_path, HEADRACE_FEATURE_STORE_REDIS_URL=redis_url)[1]
        return {part.removeprefix("users' Redis"): told for part, told in found.items() if "Redis" in part}

    unused = looked_at(url)
    assert unused[""][1].startswith("Redis ")
    assert unused[": settings"][:2] == ("ok", "appendonly yes, maxmemory-policy noeviction")
    assert unused[": people"][:2] == ("ok", "none yet: no feature store has used it")
    tier = open_user_tier(url)
    tier.restore(0, {})
    assert "64 partitions at offset 0" in looked_at(url)[": people"][1]
    other = Tag(3).standing
    own_redis.client().set(other, "another process 7 1")
    assert looked_at(url)[": people"][:2] == ("failure", "64 of 64 partitions, of 2 feature stores")
    own_redis.client().set(other, "junk")
    assert looked_at(url)[": people"][0] == "failure"
    own_redis.client().config_set("maxmemory-policy", "allkeys-lru")
    level, said, remedy = looked_at(url)[": settings"]
    assert (level, said) == ("warning", "appendonly yes, maxmemory-policy allkeys-lru")
    assert "needed: maxmemory-policy noeviction" in remedy
    own_redis.kill()
    away = looked_at(url)
    assert (list(away), away[""][0]) == ([""], "failure")
    assert "does not answer" in away[""][1]
    tier.close()
