"""Rollouts through the trainer's calls: orders, reports, an undo that lasts, a decider that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.cli.suite import free_ports
from headrace.runtime.channels import open_channel
from headrace.runtime.serving import running
from headrace.trainer.__main__ import compose
from headrace.trainer.rollouts.decisions import replay
from headrace.v1 import trainer_pb2, trainer_pb2_grpc

_PROMOTED = trainer_pb2.ROLLOUT_PHASE_PROMOTED


@asynccontextmanager
async def _trainer(suite, rules, **changed: object) -> AsyncIterator[trainer_pb2_grpc.TrainerServiceStub]:
    settings = suite.settings(**changed)
    async with compose(settings, suite.common, rules=rules) as parts, running(parts, settings) as server:
        channel = open_channel(server.address)
        yield trainer_pb2_grpc.TrainerServiceStub(channel)
        await channel.close()


async def _stable(stub) -> str:
    watch = stub.WatchServingPlan(trainer_pb2.WatchServingPlanRequest())
    plan = await watch.read()
    watch.cancel()
    return plan.stable.release


async def _published(suite, stub, more_than: str) -> str:
    """Writes events until another release serves; its name."""

    async def serves() -> str:
        await suite.write(suite.visits(2))
        found = await _stable(stub)
        return found if found > more_than else ""

    return await suite.until(serves)


async def _code(call) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_an_undo_survives_a_restart_of_everything(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(5)])
    async with suite.trainer(publish_every_s=0.01) as stub:
        first = await _published(suite, stub, "")
        await _published(suite, stub, first)
        undone = await stub.UndoRollout(trainer_pb2.UndoRolloutRequest(release=first, actor="eve", reason="poisoned"))
        assert undone.stable.release == first
        assert await _stable(stub) == first
    async with suite.trainer(publish_every_s=0.01) as stub:
        await suite.write(suite.visits(5))
        await suite.learned(stub)
        assert await _stable(stub) == first
        newest = (await stub.ListReleases(trainer_pb2.ListReleasesRequest(page_size=1))).releases[0].release
        assert newest > first
        await stub.ResumeRollout(trainer_pb2.ResumeRolloutRequest(actor="eve"))
        await _published(suite, stub, newest)
        history = (await stub.GetRolloutHistory(trainer_pb2.GetRolloutHistoryRequest(page_size=1_000))).transitions
    assert "poisoned" in {step.reason for step in history if step.actor == "eve"}
    assert all(replay(step.evidence) for step in history)


async def test_orders_that_make_no_sense_are_refused_with_every_fault(suite) -> None:
    async with suite.trainer() as stub:
        no_name = trainer_pb2.CreateRolloutRequest(steps_bp=[500, 100, 20_000], actor="a" * 201, reason="\n")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateRollout(no_name)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        told = str(caught.value.details())
        assert all(field in told for field in ("release", "steps_bp[2]", "must grow", "actor", "reason"))
        missing = trainer_pb2.CreateRolloutRequest(lineage="nobody")
        assert await _code(stub.CreateRollout(missing)) == grpc.StatusCode.NOT_FOUND
        assert await _code(stub.GetRollout(trainer_pb2.GetRolloutRequest())) == grpc.StatusCode.NOT_FOUND
        assert await _code(stub.PauseRollout(trainer_pb2.PauseRolloutRequest(rollout="x"))) == grpc.StatusCode.NOT_FOUND
        assert await _code(stub.UndoRollout(trainer_pb2.UndoRolloutRequest())) == grpc.StatusCode.FAILED_PRECONDITION
        report = trainer_pb2.ReportServingRequest(
            track="both",
            arms=[trainer_pb2.ArmReport(arm="left", latency=[1], answers=-1)],
            shadow=trainer_pb2.ShadowReport(sum_ms=float("nan")),
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ReportServing(report)
        told = str(caught.value.details())
        fields = ("ranker", "start_time", "track", "arms[0].arm", "arms[0].latency", "arms[0].answers", "shadow.sum_ms")
        assert all(field in told for field in fields)


async def test_what_rankers_report_decides(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(5)])
    rules = suite.rules(unserved_s=1e6, gate_pairs=10, one_kind_s=0)
    async with _trainer(suite, rules, publish_every_s=0.01) as stub:
        first = await suite.until(lambda: _stable(stub))
        task = asyncio.create_task(_rank(stub))
        second = await _published(suite, stub, first)
        task.cancel()
        found = (await stub.ListRollouts(trainer_pb2.ListRolloutsRequest(with_increments=True, page_size=100))).rollouts
    [promoted] = [rollout for rollout in found if rollout.release == second]
    gates = {gate.gate: gate for gate in promoted.gates}
    assert (promoted.baseline, gates[0].passed, gates[1].passed) == (first, True, True)
    assert gates[1].numbers["pairs"] >= 10


async def _rank(stub) -> None:
    """A ranker that does as the plan says and finds nothing wrong."""
    start = Timestamp(seconds=1)
    async for plan in stub.WatchServingPlan(trainer_pb2.WatchServingPlanRequest()):
        shadow = trainer_pb2.ShadowReport(
            release=plan.shadow.release,
            baseline=plan.stable.release,
            pairs=20,
            sum_overlap_at_10=20,
            sum_overlap_at_20=20,
            sum_rank_correlation=20,
            sum_tower_correlation=20,
        )
        await stub.ReportServing(
            trainer_pb2.ReportServingRequest(
                ranker="ranker-1",
                start_time=start,
                track="stable",
                plan_sequence=plan.sequence,
                release=plan.stable.release,
                shadow=shadow if plan.HasField("shadow") else None,
            )
        )


class _Listener(BaseHTTPRequestHandler):
    """Refuses the first news, so that it has to be told again."""

    refused: list[bytes]
    heard: list[dict[str, str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused:
            self.heard.append(json.loads(body))
        self.send_response(200 if self.refused else 503)
        self.refused.append(body)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


async def test_others_are_told_by_webhook_and_by_verdict(suite) -> None:
    [free_port], heard = free_ports(1), []
    listener = HTTPServer(("127.0.0.1", 0), type("Listener", (_Listener,), {"heard": heard, "refused": []}))
    thread = Thread(target=listener.serve_forever)
    thread.start()
    rules = suite.rules(webhook_urls=f"http://127.0.0.1:{listener.server_address[1]}/hook", verdict_port=free_port)
    await suite.write([*suite.products(), *suite.visits(5)])
    try:
        async with _trainer(suite, rules) as stub:
            await suite.learned(stub)

            async def is_promoted() -> bool:
                return bool(heard) and heard[-1]["to"] == "promoted"

            await suite.until(is_promoted)
            said = await asyncio.to_thread(_ask, free_port, "current/verdict")
            confirmed = await asyncio.to_thread(_ask, free_port, "ro-000001/confirmation", b"{}")
            unknown = await asyncio.to_thread(_ask, free_port, "ro-000009/verdict")
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
    assert [news["to"] for news in heard] == ["validating", "promoting", "soaking", "promoted"]
    assert (said[0], said[1]["rollout"], said[1]["verdict"]) == (200, "ro-000001", "pass")
    assert (confirmed[0], unknown[0]) == (200, 404)


def _ask(port: int, path: str, body: bytes | None = None) -> tuple[int, dict[str, str]]:
    url = f"http://127.0.0.1:{port}/v1/rollouts/{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


async def test_another_registry_decides_when_the_one_that_did_is_killed(suite) -> None:
    await suite.write([*suite.products(), *suite.visits(5)])
    environment = os.environ | {
        "HEADRACE_DATA_DIR": str(suite.common.data_dir),
        "HEADRACE_TRAINER_ROLE": "registry",
        "HEADRACE_TRAINER_PORT": "0",
        "HEADRACE_ROLLOUT_LEASE_S": "1",
        "HEADRACE_ROLLOUT_UNSERVED_S": "1000000",
    }
    arguments = (sys.executable, "-m", "headrace.trainer")
    killed = await asyncio.create_subprocess_exec(*arguments, env=environment, stderr=asyncio.subprocess.PIPE)
    try:
        assert killed.stderr is not None
        while b"decides" not in (line := await killed.stderr.readline()):
            assert line
        drain = asyncio.create_task(killed.stderr.read())
        async with (
            _trainer(suite, None, role="learn", publish_every_s=0.01) as learner,
            _trainer(suite, suite.rules(lease_s=1), role="registry") as registry,
        ):
            first = await suite.until(lambda: _stable(registry))
            await suite.write(suite.visits(3))

            async def shadows() -> bool:
                found = (await registry.GetRollout(trainer_pb2.GetRolloutRequest())).found
                return found.phase == trainer_pb2.ROLLOUT_PHASE_SHADOWING

            # the one that decides waits for rankers for ever
            await suite.until(shadows)
            killed.send_signal(signal.SIGKILL)

            async def took_over() -> bool:
                return await _stable(registry) > first

            await suite.until(took_over)
            assert await _code(learner.GetRollout(trainer_pb2.GetRolloutRequest())) == (
                grpc.StatusCode.FAILED_PRECONDITION
            )
            history = (await registry.GetRolloutHistory(trainer_pb2.GetRolloutHistoryRequest())).transitions
            assert all(replay(step.evidence) for step in history)
        await drain
    finally:
        if killed.returncode is None:
            killed.kill()
        await killed.wait()
