"""SIGKILL of a real index process at random moments while batches stream in."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from headrace.cli.suite import free_ports
from headrace.runtime.channels import is_lost, open_channel
from headrace.v1 import common_pb2, index_pb2, index_pb2_grpc

KILLS, BATCHES, ROWS, DIMENSION, ITEMS = 6, 1500, 20, 32, 500


@contextmanager
def process(data_dir: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment |= {
        "HEADRACE_DATA_DIR": str(data_dir),
        "HEADRACE_INDEX_PORT": str(port),
        "HEADRACE_INDEX_DEVICE": "cpu",
        "HEADRACE_INDEX_WAL_FILE_MB": "1",
        # snapshots all the time, so that kills fall into them too
        "HEADRACE_INDEX_SNAPSHOT_EVERY_S": "0.02",
    }
    with (data_dir / "index.log").open("ab") as log:
        started = subprocess.Popen([sys.executable, "-m", "headrace.index"], env=environment, stderr=log)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


async def test_everything_acknowledged_survives_kills(tmp_path: Path, sender_of) -> None:  # type: ignore[no-untyped-def]
    moments, port = random.Random(11), free_ports(1)[0]
    sender = sender_of("s-1", DIMENSION)
    digests = {0: sender.digest()}
    for _ in range(BATCHES):
        sender.batch(rows=ROWS, items=ITEMS)
        digests[sender.sequence] = sender.digest()
    acknowledged = 0
    async with asyncio.timeout(60):
        for _ in range(KILLS):
            with process(tmp_path, port) as index:
                acknowledged = await check(port, digests, acknowledged)
                left = (sender.sequence - acknowledged) // ROWS
                acknowledged = await send_and_kill(index, port, sender, acknowledged, moments.randint(1, left // 2))
        with process(tmp_path, port):
            acknowledged = await check(port, digests, acknowledged)
            async with open_channel(f"127.0.0.1:{port}") as channel:
                stub = index_pb2_grpc.IndexServiceStub(channel)
                answers = [answer async for answer in stub.ApplyEmbeddings(following(sender, acknowledged))]
            assert answers[-1].applied_sequence == sender.sequence
            assert await check(port, digests, sender.sequence) == sender.sequence
    # the newest two, and at most one that the last kill left half-written
    assert 2 <= len(list((tmp_path / "index" / "snapshots").iterdir())) <= 3


async def check(port: int, digests: dict[int, str], acknowledged: int) -> int:
    """The sequence of a freshly started index, which holds exactly what was sent up to it."""
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        create = index_pb2.CreateSpaceRequest(space="s-1", dimension=DIMENSION)
        await stub.CreateSpace(create, wait_for_ready=True)
        [space] = (await stub.GetIndexStats(index_pb2.GetIndexStatsRequest(with_digest=True))).spaces
        assert space.applied_sequence >= acknowledged
        assert space.digest == digests[space.applied_sequence]
        query = common_pb2.Matrix(rows=1, columns=DIMENSION, values=np.ones(DIMENSION, "<f4").tobytes())
        found = await stub.Search(index_pb2.IndexServiceSearchRequest(space="s-1", queries=query, k=10))
        assert found.applied_sequence == space.applied_sequence
    return int(space.applied_sequence)


async def send_and_kill(  # type: ignore[no-untyped-def]
    index: subprocess.Popen[bytes], port: int, sender, applied: int, after: int
) -> int:
    """The last sequence acknowledged by an index that is killed once it has acknowledged `after` batches."""
    async with open_channel(f"127.0.0.1:{port}") as channel:
        stub = index_pb2_grpc.IndexServiceStub(channel)
        answered = 0
        try:
            async for answer in stub.ApplyEmbeddings(following(sender, applied)):
                assert not answer.gap
                applied = answer.applied_sequence
                answered += 1
                if answered == after:
                    index.kill()
        except grpc.aio.AioRpcError as error:
            assert is_lost(error)  # noqa: PT017
    assert answered >= after
    index.wait()
    return applied


async def following(sender, applied: int) -> AsyncIterator[index_pb2.ApplyEmbeddingsRequest]:  # type: ignore[no-untyped-def]
    for batch in sender.sent[applied // ROWS :]:
        yield batch
