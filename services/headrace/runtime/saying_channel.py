"""A channel whose every call says something more: credentials, in the metadata."""

from __future__ import annotations

from typing import Any

import grpc

Metadata = tuple[tuple[str, str], ...]


class SayingChannel(grpc.aio.Channel):
    """`channel`, with `said` in the metadata of each call, after what the call brings itself.

    gRPC's own call credentials do the same, but only where the connection is encrypted.
    """

    def __init__(self, channel: grpc.aio.Channel, said: Metadata) -> None:
        self._channel = channel
        self._said = said

    def unary_unary(self, *made_with: Any, **named: Any) -> Any:
        return self._saying(self._channel.unary_unary(*made_with, **named))

    def unary_stream(self, *made_with: Any, **named: Any) -> Any:
        return self._saying(self._channel.unary_stream(*made_with, **named))

    def stream_unary(self, *made_with: Any, **named: Any) -> Any:
        return self._saying(self._channel.stream_unary(*made_with, **named))

    def stream_stream(self, *made_with: Any, **named: Any) -> Any:
        return self._saying(self._channel.stream_stream(*made_with, **named))

    def _saying(self, method: Any) -> Any:
        def call(*arguments: Any, metadata: Any = None, **named: Any) -> Any:
            return method(*arguments, metadata=(*(metadata or ()), *self._said), **named)

        return call

    async def __aenter__(self) -> SayingChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()
