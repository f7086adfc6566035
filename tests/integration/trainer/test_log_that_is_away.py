"""A trainer whose log is away goes on when it is back."""

from __future__ import annotations

import pytest

from benchmarks.postgres_server import PostgresServer
from headrace.runtime.settings import CommonSettings
from headrace.v1 import trainer_pb2


async def test_a_trainer_waits_for_a_log_that_is_away_and_says_so_once(
    suite, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("headrace.runtime.eventlog.postgres._PATIENCE_S", 0.05)
    caplog.set_level("INFO", "headrace.runtime.outage")
    suite.common = CommonSettings(data_dir=suite.common.data_dir, event_log_url=own_postgres.new_database())
    await suite.write([*suite.products(), *suite.visits(5)])

    def said() -> list[str]:
        return [one.message for one in caplog.records if one.name == "headrace.runtime.outage"]

    async def attempts() -> bool:
        # it is asked more often than it says
        asked.append(len(said()))
        return asked[-10:] == [1] * 10

    asked: list[int] = []
    async with suite.trainer() as stub:
        before = await suite.learned(stub)
        own_postgres.kill()
        await suite.until(attempts)
        assert (await stub.ListReleases(trainer_pb2.ListReleasesRequest())).releases
        own_postgres.start()
        await suite.write(suite.visits(5))
        after = await suite.learned(stub)
    assert after.offset > before.offset
    assert said() == ["unavailable", "available_again"]
