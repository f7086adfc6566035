from __future__ import annotations

from datetime import UTC, datetime

import pytest

from headrace.ingest.__main__ import main
from headrace.ingest.settings import IngestSettings
from headrace.runtime.settings import SettingsError, load


def test_the_names_and_defaults_are_these() -> None:
    assert IngestSettings().model_dump() == {
        "host": "127.0.0.1",
        "port": 7401,
        "max_message_bytes": 16 << 20,
        "drain_s": 5.0,
        "health_port": 0,
        "max_connection_age_s": 0.0,
        "auth_file": None,
        "max_connections": 4_096,
        "max_streams": 1_024,
        "max_metadata_bytes": 16 << 10,
        "handshake_s": 10.0,
        "database_url": "",
        "max_future_skew_s": 60.0,
        "min_event_time": datetime(2000, 1, 1, tzinfo=UTC),
        "bot_events_per_minute": 600,
        "bot_views": 100,
        "bot_views_per_minute": 40,
        "bot_refusal_minutes": 60.0,
        "repeat_window_ms": 300,
        "outlier_score": 6.0,
        "require_event_ids": False,
        "remembered_records": 20_000,
        "cancel_window_records": 200_000,
        "token_days": 30.0,
        "dead_letter_days": 30.0,
        "forget_consumers": "feature-store,trainer",
        "forget_deadline_s": 60.0,
        "forget_settle_s": 1.0,
        "max_unacknowledged": 4_096,
        "stream_batch_events": 500,
        "max_waiting_records": 50_000,
    }


def test_a_time_without_its_zone_is_refused() -> None:
    assert load(IngestSettings, {"HEADRACE_INGEST_MIN_EVENT_TIME": "2010-01-01T00:00:00Z"}).min_event_time.year == 2010
    with pytest.raises(SettingsError, match="HEADRACE_INGEST_MIN_EVENT_TIME='2010-01-01T00:00:00'"):
        load(IngestSettings, {"HEADRACE_INGEST_MIN_EVENT_TIME": "2010-01-01T00:00:00"})


def test_an_environment_that_does_not_fit_ends_the_process_with_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_INGEST_PROT", "7401")
    assert main() == 2
    assert "unknown variable HEADRACE_INGEST_PROT" in capsys.readouterr().err
