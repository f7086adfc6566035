"""Images: each service installs and starts alone, from the steps of the Dockerfile.

Five installations take two minutes: `make images-check` (TEST_IMAGES=1) makes them.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headrace.cli.suite_file import SERVICES
from tests.deploy.dockerfile import build, entrypoint, stages
from tests.deploy.mini_cluster import free_ports

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
# what each must do without
_ABSENT = {
    "ingest": ("torch", "faiss", "numpy", "scipy", "tantivy", "lightkube"),
    "feature-store": ("torch", "faiss", "scipy", "tantivy", "sqlalchemy", "lightkube"),
    "trainer": ("faiss", "tantivy", "redis"),
    "index": ("torch", "scipy", "sqlalchemy", "psycopg", "tantivy", "lightkube"),
    "ranker": ("faiss", "sqlalchemy", "lightkube"),
}
_PRESENT = {
    "ingest": ("sqlalchemy", "psycopg", "confluent_kafka"),
    "feature-store": ("numpy", "redis", "psycopg", "confluent_kafka"),
    "trainer": ("torch", "safetensors", "lightkube", "psycopg", "confluent_kafka", "tokenizers"),
    "index": ("faiss", "headrace.index._scan"),
    "ranker": ("torch", "tantivy", "psycopg", "confluent_kafka", "tokenizers"),
}
_ASK = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n) is None])"


@dataclass(frozen=True)
class Image:
    """A service's files, as its image has them."""

    service: str
    root: Path

    @property
    def python(self) -> Path:
        return self.root / "opt" / "headrace" / "bin" / "python"

    def missing(self, names: tuple[str, ...]) -> list[str]:
        """Those modules that it doesn't have."""
        # -I: neither this tree nor PYTHONPATH is looked at
        done = subprocess.run([self.python, "-I", "-c", _ASK, *names], capture_output=True, text=True, check=True)
        return re.findall(r"'([^']+)'", done.stdout)


@pytest.fixture(scope="module", params=SERVICES)
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    if not os.environ.get("TEST_IMAGES"):
        pytest.skip("TEST_IMAGES is not set: `make images-check` sets it")
    building, _ = stages(DOCKERFILE)
    with tempfile.TemporaryDirectory(prefix="headrace-image-") as folder:
        # where torch is from is this machine's to say
        build(building, ROOT, Path(folder), {"SERVICE": request.param, "VARIANT": "cpu", "TORCH_INDEX": ""})
        yield Image(request.param, Path(folder))


@pytest.mark.timeout(600)
async def test_a_service_installs_alone_and_starts(image: Image, tmp_path: Path) -> None:
    assert image.missing(_PRESENT[image.service]) == []
    absent = (*_ABSENT[image.service], "pip", "pytest", "mypy", "polars")
    assert image.missing(absent) == list(absent)
    assert await _ends_after_serving(image, tmp_path) == 0


def test_a_service_of_another_name_is_refused() -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "image" / "build-venv.sh", "door", "cpu", "/nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "got 'door'" in done.stderr


def test_only_the_index_has_a_variant_for_gpus() -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "image" / "build-venv.sh", "ranker", "gpu", "/nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "only the index has the variant 'gpu'" in done.stderr


def test_the_final_stage_runs_nothing_as_root_and_installs_nothing() -> None:
    building, final = stages(DOCKERFILE)
    assert any("g++" in text for text in building.of("RUN"))
    assert final.of("RUN") == []
    assert final.of("COPY") == ["--from=build /opt/headrace /opt/headrace"]
    assert final.of("USER") == ["65532:65532"]


def test_the_base_is_an_argument_without_a_default() -> None:
    assert "\nARG PYTHON_IMAGE\n" in DOCKERFILE.read_text()
    assert {stage.base for stage in stages(DOCKERFILE)} == {"${PYTHON_IMAGE}"}


async def _ends_after_serving(image: Image, data: Path) -> int:
    """Starts the entry point, waits until its health port says SERVING, and asks it to end; the exit status."""
    _, final = stages(DOCKERFILE)
    [ports] = free_ports(1)
    prefix = f"HEADRACE_{image.service.upper().replace('-', '_')}"
    environment = {
        "PATH": f"{image.python.parent}:{os.environ['PATH']}",
        "HOME": str(data),
        "HEADRACE_DATA_DIR": str(data / "data"),
        f"{prefix}_PORT": str(ports.grpc),
        f"{prefix}_HEALTH_PORT": str(ports.health),
    }
    log = data / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *entrypoint(final, image.root), env=environment, cwd=data, stdout=output, stderr=output
        )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.health}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while (await _status(health)) != health_pb2.HealthCheckResponse.SERVING:
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(process.wait(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _status(health: health_pb2_grpc.HealthStub) -> int:
    try:
        return int((await health.Check(health_pb2.HealthCheckRequest(), timeout=1)).status)
    except grpc.aio.AioRpcError:
        return health_pb2.HealthCheckResponse.UNKNOWN
