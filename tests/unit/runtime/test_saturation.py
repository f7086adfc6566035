from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_MEASURED = """
import asyncio, sys, time
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))

def points():
    data = reader.get_metrics_data()
    return {
        metric.name: list(metric.data.data_points)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
"""


def measured(program: str) -> None:
    """Runs a program that has `points()`: what was measured, by metric. Providers are set once a process."""
    ran = subprocess.run([sys.executable, "-c", _MEASURED + program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_loop_that_is_held_up_a_queue_and_the_process_are_measured() -> None:
    measured("""
from headrace.runtime import saturation
saturation._LOOK_S = 0.01

async def main():
    watch = asyncio.create_task(saturation.watch_saturation({"answers": lambda: 3}))
    await asyncio.sleep(0)
    time.sleep(0.2)
    while "headrace.process.loop.lag" not in points():
        await asyncio.sleep(0.005)
    watch.cancel()
    found = points()
    assert found["headrace.process.loop.lag"][0].max > 150, found
    assert found["headrace.process.waiting"][0].value == 3
    assert dict(found["headrace.process.waiting"][0].attributes) == {"queue": "answers"}
    assert found["headrace.process.memory"][0].value > 1 << 20
    assert found["headrace.process.threads"][0].value >= 1
    assert found["headrace.process.cpu"][0].value > 0

asyncio.run(main())
""")


def test_a_reader_that_stands_still_is_measured_as_behind(tmp_path: Path) -> None:
    measured(f"""
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.behind import watch_behind
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings

async def main():
    log = open_event_log(CommonSettings(data_dir={str(tmp_path)!r}))
    for number in range(3):
        await log.append([Record(kind="k", key="k", event_id=f"e{{number}}", time_us=1, payload=b"")])
    watch = asyncio.create_task(watch_behind(log, lambda: 1, every_s=0.01))
    while not (found := points().get("headrace.event_log.behind")):
        await asyncio.sleep(0.005)
    assert found[0].value == 2
    watch.cancel()
    await log.close()

asyncio.run(main())
""")
