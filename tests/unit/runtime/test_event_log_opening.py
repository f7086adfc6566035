"""Which event log a process gets, by what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.runtime.errors import NotFoundError
from headrace.runtime.eventlog.kafka import KafkaEventLog
from headrace.runtime.eventlog.kafka_url import kafka_url
from headrace.runtime.eventlog.opening import open_event_log, require_event_log
from headrace.runtime.eventlog.postgres import PostgresEventLog
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.settings import CommonSettings, SettingsError, load


async def test_without_a_url_the_log_is_a_file_in_the_data_folder(tmp_path: Path) -> None:
    log = open_event_log(load(CommonSettings, {"HEADRACE_DATA_DIR": str(tmp_path)}))
    assert isinstance(log, SqliteEventLog)
    assert await log.end() == (0, 0)
    await log.close()
    assert (tmp_path / "events.db").is_file()


async def test_a_kafka_url_opens_that_topic(tmp_path: Path) -> None:
    given = {"HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_EVENT_LOG_URL": "kafka://127.0.0.1:1,host:2/shop"}
    log = open_event_log(load(CommonSettings, given))
    assert isinstance(log, KafkaEventLog)
    await log.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_postgresql_url_opens_that_database(tmp_path: Path) -> None:
    given = {"HEADRACE_DATA_DIR": str(tmp_path), "HEADRACE_EVENT_LOG_URL": "postgresql://127.0.0.1:1/shop"}
    log = open_event_log(load(CommonSettings, given))
    assert isinstance(log, PostgresEventLog)
    await log.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["kafkas://broker:9092/topic", "events.db", "postgresql+psycopg://host/shop"])
def test_another_url_is_refused_by_name_and_value(url: str) -> None:
    with pytest.raises(SettingsError, match="must be empty or begin with postgresql://") as refused:
        load(CommonSettings, {"HEADRACE_EVENT_LOG_URL": url})
    assert f"HEADRACE_EVENT_LOG_URL='{url}'" in str(refused.value)


@pytest.mark.parametrize(
    "url", ["kafka://broker/topic", "kafka://broker:9092", "kafka://broker:9092/a/b", "kafka://me:secret@broker:9092/t"]
)
def test_a_kafka_url_without_ports_or_one_topic_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"must be of the form kafka://host:port,host:port/topic"):
        load(CommonSettings, {"HEADRACE_EVENT_LOG_URL": url})


def test_what_follows_the_question_mark_of_a_kafka_url_is_for_librdkafka() -> None:
    url = kafka_url("kafka://a:1,b:2/shop.events?security.protocol=SSL&linger.ms=1")
    assert (url.brokers, url.topic, url.options) == (
        "a:1,b:2",
        "shop.events",
        {"security.protocol": "SSL", "linger.ms": "1"},
    )
    assert str(url) == "topic shop.events at a:1,b:2"


def test_only_an_embedded_log_must_have_been_begun(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no event log at .*events\.db"):
        require_event_log(CommonSettings(data_dir=tmp_path))
    require_event_log(CommonSettings(data_dir=tmp_path, event_log_url="postgresql://host/shop"))
