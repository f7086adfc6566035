"""Asks the canary track, once: one try within its part of the deadline, and why there is no answer otherwise."""

from __future__ import annotations

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


class CanaryTrack:
    """The canary's rankers behind one channel, which must try nothing again by itself."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # bytes come back, for an answer that is no message is the canary's fault and to be told from others
        self._methods: dict[type[Message], Any] = {
            kind: channel.unary_unary(_PATH + method, request_serializer=_serialized)
            for kind, method in METHODS.items()
        }

    async def ask(self, kind: type[R], request: Message, exposure: Exposure, timeout_s: float) -> R:
        """The canary's answer, not looked at yet. FallbackError."""
        options: CallOptions = call_options(timeout_s)
        metadata = (*options["metadata"], *forwarding(CANARY, exposure))
        try:
            data = await self._methods[kind](request, timeout=options["timeout"], metadata=metadata)
            return kind.FromString(data)
        except grpc.aio.AioRpcError as error:
            raise FallbackError(_REASONS.get(error.code(), Reason.ERROR), error.details() or "") from error
        except DecodeError as error:
            raise FallbackError(Reason.INVALID, str(error)) from error


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
