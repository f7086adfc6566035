"""The ranker as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def environment(tmp_path: Path, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return kept | {"HEADRACE_DATA_DIR": str(tmp_path)} | variables


async def test_it_serves_without_peers_and_stops_when_asked(tmp_path, make, unused_tcp_port):
    port = str(unused_tcp_port)
    variables = environment(tmp_path, HEADRACE_RANKER_PORT=port, HEADRACE_RANKER_READY_WAIT_S="0.1")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "headrace.ranker", env=variables)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def is_serving() -> bool:
                request = health_pb2.HealthCheckRequest(service="headrace.v1.RankerService")
                try:
                    answer = await health.Check(request, timeout=1)
                except grpc.aio.AioRpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await make.eventually(is_serving, 60)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_a_setting_that_does_not_fit_is_named(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "headrace.ranker"],
        env=environment(tmp_path, HEADRACE_RANKER_CPU_THREADS="0"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "HEADRACE_RANKER_CPU_THREADS" in done.stderr
