"""The floor under a read of features: a grpc.aio server on uvloop that gathers rows of one NumPy table and answers.

`python -m benchmarks.gather TABLE ANSWER` prints its port and serves until it is stopped. TABLE is a file of NumPy
with a row an item, ANSWER a `GetOnlineFeaturesResponse` whose matrix is replaced by the rows that are asked for: the
message is the one that the feature store gives, with nothing looked up but the rows.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from headrace.v1.common_pb2 import Matrix
from headrace.v1.feature_store_pb2 import GetOnlineFeaturesRequest, GetOnlineFeaturesResponse, UserHistory
from headrace.v1.feature_store_pb2_grpc import (
    FeatureStoreServiceServicer,
    add_FeatureStoreServiceServicer_to_server,
)


class _Gather(FeatureStoreServiceServicer):
    def __init__(self, table: np.ndarray, answer: GetOnlineFeaturesResponse) -> None:
        self._table = table
        self._user = answer.user_features
        self._names = tuple(answer.user_feature_names), tuple(answer.item_feature_names)
        history = answer.history
        self._history = history.item_ordinals, history.event_types, history.times_us, history.channels
        self._rest = answer.feature_schema, answer.offset, answer.now_us

    async def GetOnlineFeatures(self, request: GetOnlineFeaturesRequest, context: Any) -> GetOnlineFeaturesResponse:
        rows = self._table[np.frombuffer(request.item_ordinals, "<u4")]
        ordinals, event_types, times_us, channels = self._history
        schema, offset, now_us = self._rest
        return GetOnlineFeaturesResponse(
            user_features=self._user,
            user_feature_names=self._names[0],
            item_features=Matrix(rows=rows.shape[0], columns=rows.shape[1], values=rows.tobytes()),
            item_feature_names=self._names[1],
            history=UserHistory(item_ordinals=ordinals, event_types=event_types, times_us=times_us, channels=channels),
            feature_schema=schema,
            offset=offset,
            now_us=now_us,
        )


async def _serve(table: Path, answer: Path) -> None:
    server = grpc.aio.server()
    servicer = _Gather(np.load(table), GetOnlineFeaturesResponse.FromString(answer.read_bytes()))
    add_FeatureStoreServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)  # its parent reads it
    await server.wait_for_termination()


@asynccontextmanager
async def running_gather(table: Path, answer: Path) -> AsyncIterator[str]:
    """The server as a process of its own: its address."""
    command = (sys.executable, "-m", "benchmarks.gather", str(table), str(answer))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None, "asked for above"
    try:
        yield f"127.0.0.1:{(await process.stdout.readline()).decode().strip()}"
    finally:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
