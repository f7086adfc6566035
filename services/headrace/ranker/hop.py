"""Asks the canary track, once: one try within its part of the deadline, and why there is no answer otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from headrace.model.arms import CANARY
from headrace.ranker.canary_answer import R
from headrace.ranker.exposure import Exposure
from headrace.ranker.fallback import FallbackError, Reason
from headrace.ranker.marks import forwarding
from headrace.runtime.calls import CallOptions, call_options
from headrace.v1 import ranker_pb2

_PATH = "/headrace.v1.RankerService/"
METHODS: dict[type[Message], str] = {
    ranker_pb2.RecommendResponse: "Recommend",
    ranker_pb2.SearchResponse: "Search",
    ranker_pb2.RankResponse: "Rank",
}
_REASONS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.TIMEOUT,
    grpc.StatusCode.UNAVAILABLE: Reason.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
}


# a channel that got nowhere so often in a row is opened anew
_LOST_AFTER = 4
_GRACE_S = 30.0
_LOST = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


class CanaryTrack:
    """The canary's rankers behind one channel, which must try nothing again by itself.

    The channel is renewed when it seems lost: gRPC asks for a name that did not resolve (a canary with no pod has none)
    ever more seldom, up to two minutes apart, and notices a machine that is gone after its keepalive only.
    """

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel]) -> None:
        self._open = open_channel
        self._lost = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._renew()

    async def ask(self, kind: type[R], request: Message, exposure: Exposure, timeout_s: float) -> R:
        """The canary's answer, not looked at yet. FallbackError."""
        options: CallOptions = call_options(timeout_s)
        metadata = (*options["metadata"], *forwarding(CANARY, exposure))
        try:
            data = await self._methods[kind](request, timeout=options["timeout"], metadata=metadata)
            self._lost = 0
            return kind.FromString(data)
        except grpc.aio.AioRpcError as error:
            self._note(error.code())
            raise FallbackError(_REASONS.get(error.code(), Reason.ERROR), error.details() or "") from error
        except DecodeError as error:
            raise FallbackError(Reason.INVALID, str(error)) from error

    async def close(self) -> None:
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()

    def _note(self, code: grpc.StatusCode) -> None:
        self._lost = self._lost + 1 if code in _LOST else 0
        if self._lost < _LOST_AFTER:
            return
        self._lost = 0
        # those that still wait on it end by themselves: one that is cancelled would fail its user
        closing = asyncio.create_task(self._channel.close(_GRACE_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._renew()

    def _renew(self) -> None:
        self._channel = self._open()
        # bytes come back, for an answer that is no message is the canary's fault and to be told from others
        self._methods: dict[type[Message], Any] = {
            kind: self._channel.unary_unary(_PATH + method, request_serializer=_serialized)
            for kind, method in METHODS.items()
        }


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
