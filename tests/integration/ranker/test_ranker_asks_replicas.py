"""A shard's replicas behind channels that try nothing again by themselves: the next replica is the second try."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from headrace.ranker.peers import IndexPeer
from headrace.ranker.replica_channels import replica_channels
from headrace.ranker.replicas import Replicas
from headrace.runtime.serving import Background, Face, Parts, running
from headrace.runtime.settings import ServingSettings
from headrace.v1 import index_pb2, index_pb2_grpc

CALLERS = 12


class Index(index_pb2_grpc.IndexServiceServicer):
    """Knows no vectors; away for the first so many questions."""

    def __init__(self, away: int = 0) -> None:
        self.asked = 0
        self._away = away

    async def GetEmbeddings(
        self, request: index_pb2.GetEmbeddingsRequest, context: Any
    ) -> index_pb2.GetEmbeddingsResponse:
        self.asked += 1
        if self.asked <= self._away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return index_pb2.GetEmbeddingsResponse(space="main")


def serving(index: Index, port: int = 0, drain_s: float = 5) -> Any:
    face = Face(
        "headrace.v1.IndexService", lambda server: index_pb2_grpc.add_IndexServiceServicer_to_server(index, server)
    )
    return running(Parts([face], Background()), ServingSettings(port=port, drain_s=drain_s))


async def embeddings(replicas: Replicas[IndexPeer], make: Any, timeout_s: float) -> str:
    none = make.vectors()[:0, 0].astype("u4")
    return (await replicas.asked(lambda peer, left_s: peer.embeddings("", none, left_s), timeout_s)).space


async def test_the_next_replica_is_asked_at_once_and_an_only_one_again(make) -> None:
    away, well, alone = Index(away=9), Index(), Index(away=2)
    async with serving(away) as first, serving(well) as second, serving(alone) as third:
        pair = replica_channels([first.address, second.address], None)
        single = replica_channels([third.address], None)
        two, one = (Replicas([IndexPeer(channel) for channel in channels]) for channels in (pair, single))
        # each of the two is the first to be asked once
        for replicas in (two, two, one):
            assert await embeddings(replicas, make, 30) == "main"
        assert (away.asked, well.asked, alone.asked) == (1, 2, 3)
        for channel in (*pair, *single):
            await channel.close()


async def test_no_question_is_lost_while_replicas_are_replaced_one_after_the_other(make) -> None:
    indexes, over = [Index(), Index()], asyncio.Event()
    contexts = [serving(index) for index in indexes]
    addresses = [(await context.__aenter__()).address for context in contexts]
    channels = replica_channels(addresses, None)
    replicas = Replicas([IndexPeer(channel) for channel in channels])

    async def ask() -> None:
        while not over.is_set():
            assert await embeddings(replicas, make, 30) == "main"

    def answers_more(index: Index) -> Callable[[], Any]:
        until = index.asked + 10

        async def holds() -> bool:
            return index.asked >= until

        return holds

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(ask())
        for number in (0, 1):
            await make.eventually(answers_more(indexes[number]))
            await contexts[number].__aexit__(None, None, None)
            contexts[number] = serving(indexes[number], int(addresses[number].rsplit(":", 1)[1]))
            await contexts[number].__aenter__()
            # the next one is not stopped before this one takes its turns again
            await make.eventually(answers_more(indexes[number]))
        over.set()
    for channel in channels:
        await channel.close()
    for context in contexts:
        await context.__aexit__(None, None, None)
