"""`kubectl headrace` over a kubectl that forwards to a registry on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from headrace.v1 import trainer_pb2, trainer_pb2_grpc

# forwards in earnest, and notes how it was called
KUBECTL = """
    #!{python}
    import json, pathlib, socket, sys, threading
    pathlib.Path({notes!r}).write_text(json.dumps(sys.argv[1:]))
    if "no-such" in sys.argv:
        sys.exit('Error from server (NotFound): services "registry" not found')
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"Forwarding from 127.0.0.1:{{listener.getsockname()[1]}} -> 7403", flush=True)
    def pump(source, sink):
        while data := source.recv(65536):
            sink.sendall(data)
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", {port}))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()
"""


class Registry(trainer_pb2_grpc.TrainerServiceServicer):
    async def GetRollout(
        self, request: trainer_pb2.GetRolloutRequest, context: object
    ) -> trainer_pb2.GetRolloutResponse:
        found = trainer_pb2.Rollout(
            rollout=request.rollout or "ro-000009", phase=trainer_pb2.RolloutPhase.ROLLOUT_PHASE_ROLLED_BACK
        )
        return trainer_pb2.GetRolloutResponse(rollout=found.rollout, found=found)


@pytest.fixture
async def registry_port() -> AsyncIterator[int]:
    server = grpc.aio.server()
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(Registry(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


async def plugin(folder: Path, port: int, *arguments: str) -> tuple[int, str, str, list[str]]:
    import asyncio

    kubectl, notes = folder / "kubectl", folder / "called.json"
    kubectl.write_text(textwrap.dedent(KUBECTL).strip().format(python=sys.executable, notes=str(notes), port=port))
    kubectl.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "headrace.cli.kubectl", *arguments),
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    called = json.loads(notes.read_text()) if notes.exists() else []
    return process.returncode or 0, out.decode(), err.decode(), called


async def test_a_command_is_asked_of_the_registry_in_the_namespace(tmp_path: Path, registry_port: int) -> None:
    code, out, err, called = await plugin(
        tmp_path, registry_port, "-n", "shop", "--context", "west", "rollout", "status", "--json"
    )

    assert (code, json.loads(out)["rollout"], err) == (1, "ro-000009", "")
    assert called == ["--namespace", "shop", "--context", "west", "port-forward", "service/registry", ":7403"]


async def test_what_kubectl_says_is_told_in_a_line(tmp_path: Path, registry_port: int) -> None:
    code, out, err, _ = await plugin(tmp_path, registry_port, "-n", "no-such", "rollout", "status")

    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "headrace: kubectl --namespace no-such port-forward service/registry :7403: "
        'Error from server (NotFound): services "registry" not found'
    ]


async def test_help_asks_nobody(tmp_path: Path, registry_port: int) -> None:
    code, out, _, called = await plugin(tmp_path, registry_port, "rollout", "undo", "--help")

    assert (code, called) == (0, [])
    assert "Serve an earlier release again" in out
