"""A channel that follows its certificate: calls that begin after a change go over connections made with the new one.

gRPC's own channels keep the certificate that they were made with, also when they connect anew after it expired.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from headrace.runtime.tls import Certificates

Open = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class _Generation:
    """One real channel; closed when it is retired and its last call has ended."""

    def __init__(self, number: int, channel: grpc.aio.Channel) -> None:
        self.number = number
        self.channel = channel
        self.methods: dict[tuple[str, str], Any] = {}
        self._open_calls = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    def begun(self, call: Any) -> Any:
        self._open_calls += 1
        call.add_done_callback(self._ended)
        return call

    def retire(self) -> None:
        """Closes it once it is idle: a call in flight is let end, a stream may take for ever."""
        self._retired = True
        self._close_when_idle()

    async def close(self, grace: float | None) -> None:
        self._retired = True
        await self.channel.close(grace)

    @property
    def is_closing(self) -> bool:
        return self._closing is not None

    def _ended(self, _: Any) -> None:
        self._open_calls -= 1
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._retired and not self._open_calls and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.channel.close())


class RenewingChannel(grpc.aio.Channel):
    """A `grpc.aio.Channel` over channels that `open_with` makes, one for each certificate."""

    def __init__(self, certificates: Certificates, open_with: Open) -> None:
        self._certificates = certificates
        self._open_with = open_with
        self._current = self._opened()
        self._before: list[_Generation] = []

    def current(self) -> _Generation:
        """The channel of the newest certificate."""
        if self._certificates.newest().number != self._current.number:
            before, self._current = self._current, self._opened()
            before.retire()
            self._before = [one for one in (*self._before, before) if not one.is_closing]
        return self._current

    def _opened(self) -> _Generation:
        pem = self._certificates.newest()
        return _Generation(pem.number, self._open_with(pem.channel_credentials()))

    def unary_unary(self, method: str, *made_with: Any, **named: Any) -> Any:
        return _Method(self, "unary_unary", method, made_with, named)

    def unary_stream(self, method: str, *made_with: Any, **named: Any) -> Any:
        return _Method(self, "unary_stream", method, made_with, named)

    def stream_unary(self, method: str, *made_with: Any, **named: Any) -> Any:
        return _Method(self, "stream_unary", method, made_with, named)

    def stream_stream(self, method: str, *made_with: Any, **named: Any) -> Any:
        return _Method(self, "stream_stream", method, made_with, named)

    async def __aenter__(self) -> RenewingChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await asyncio.gather(*(one.close(grace) for one in (*self._before, self._current)))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.current().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._current.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current().channel.channel_ready()


class _Method:
    """One method of a stub: each call of it begins on the current channel."""

    def __init__(
        self, channel: RenewingChannel, kind: str, method: str, made_with: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self._channel = channel
        self._key = kind, method
        self._made_with = made_with
        self._named = named

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        generation = self._channel.current()
        method = generation.methods.get(self._key)
        if method is None:
            kind, name = self._key
            make = getattr(generation.channel, kind)
            method = generation.methods[self._key] = make(name, *self._made_with, **self._named)
        return generation.begun(method(*arguments, **named))
