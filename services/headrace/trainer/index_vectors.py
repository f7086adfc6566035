"""Vectors of some items of a space, from whichever replicas of the index answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from headrace.runtime.errors import UnavailableError
from headrace.runtime.shards import shard_of
from headrace.trainer.index_channels import IndexChannels
from headrace.trainer.paired_recall import ItemVectors
from headrace.v1 import index_pb2, index_pb2_grpc

_ANSWER_S = 5.0
# what one request may name
_MOST = 10_000


class SpaceVectors(Protocol):
    """Where item vectors come from."""

    async def of(self, space: str, ordinals: NDArray[np.uint32]) -> ItemVectors:
        """Those of the items that have one. UnavailableError: nobody can say."""
        ...


class IndexVectors:
    """Asks the index: of every shard one replica after the other."""

    def __init__(self, channels: IndexChannels) -> None:
        self._shards: list[list[index_pb2_grpc.IndexServiceAsyncStub]] = [
            [index_pb2_grpc.IndexServiceStub(channel) for _, channel in replicas] for replicas in channels
        ]

    async def of(self, space: str, ordinals: NDArray[np.uint32]) -> ItemVectors:
        owners = shard_of(ordinals, len(self._shards))
        found: list[index_pb2.GetEmbeddingsResponse] = []
        for number, replicas in enumerate(self._shards):
            own = ordinals[owners == number]
            parts = (own[start : start + _MOST] for start in range(0, len(own), _MOST))
            found += [await _asked(replicas, space, part) for part in parts]
        return _joined(found)


async def _asked(
    replicas: Sequence[index_pb2_grpc.IndexServiceAsyncStub], space: str, ordinals: NDArray[np.uint32]
) -> index_pb2.GetEmbeddingsResponse:
    request = index_pb2.GetEmbeddingsRequest(space=space, item_ordinals=ordinals.astype("<u4").tobytes())
    reason = "no replica is known"
    for replica in replicas:
        try:
            return await replica.GetEmbeddings(request, timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
    raise UnavailableError(f"vectors of space {space}: {reason}")


def _joined(found: Sequence[index_pb2.GetEmbeddingsResponse]) -> ItemVectors:
    ordinals = np.concatenate([np.zeros(0, np.uint32), *(np.frombuffer(one.item_ordinals, "<u4") for one in found)])
    width = max((one.vectors.columns for one in found), default=0)
    matrices = [one.vectors for one in found if one.vectors.rows]
    rows = [np.frombuffer(matrix.values, "<f4").reshape(matrix.rows, -1) for matrix in matrices]
    vectors = np.concatenate([np.zeros((0, width), np.float32), *rows])
    order = np.argsort(ordinals)
    return ItemVectors(ordinals[order], vectors[order])
