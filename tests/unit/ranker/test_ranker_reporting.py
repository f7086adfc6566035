"""Reports go out as long as the ranker runs, whether anybody listens or not."""

from __future__ import annotations

import asyncio
import logging

import pytest

from headrace.ranker.arm_counts import ArmCount
from headrace.ranker.paired import Sums
from headrace.ranker.releases import Refusal
from headrace.ranker.report_peer import report_message
from headrace.ranker.reporting import Instance, Reporter, ServingReport
from headrace.ranker.shadow import Report
from headrace.runtime.errors import UnavailableError

REPORT = ServingReport(
    Instance("ranker-0-1", 1_500_000, "stable"),
    plan_sequence=7,
    release="r-1",
    refused=Refusal("r-2", "not finite"),
    arms=[ArmCount("ro-1", "canary", answers=3, errors=1, degraded=2, latency=[1, 2, *[0] * 9])],
    shadow=Report("r-3", "r-1", Sums(pairs=2, sum_overlap_at_20=1.9, failures=1)),
)


async def test_a_registry_that_is_away_is_told_of_once_and_reported_to_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headrace.ranker.reporting")
    sent, is_over = [0], asyncio.Event()

    async def send(report: ServingReport) -> None:
        sent[0] += 1
        if sent[0] <= 3:
            raise UnavailableError("nobody there")
        if sent[0] == 6:
            is_over.set()

    running = asyncio.create_task(Reporter(lambda: REPORT, send, 0.001).run())
    await asyncio.wait_for(is_over.wait(), 10)
    running.cancel()
    assert [record.message for record in caplog.records] == ["reports_unheard", "reports_heard_again"]


def test_the_message_says_all_of_the_report() -> None:
    REPORT.arms[0].fallbacks["timeout"] += 4
    message = report_message(REPORT)
    assert (message.ranker, message.track, message.plan_sequence, message.release) == ("ranker-0-1", "stable", 7, "r-1")
    assert message.start_time.ToMicroseconds() == 1_500_000
    assert (message.refused_release, message.refused_reason) == ("r-2", "not finite")
    (arm,) = message.arms
    assert (arm.rollout, arm.arm, arm.answers, arm.errors, arm.degraded) == ("ro-1", "canary", 3, 1, 2)
    assert (dict(arm.fallbacks), list(arm.latency)) == ({"timeout": 4}, [1, 2, *[0] * 9])
    shadow = message.shadow
    assert (shadow.release, shadow.baseline, shadow.pairs, shadow.failures) == ("r-3", "r-1", 2, 1)
    assert shadow.sum_overlap_at_20 == pytest.approx(1.9)
