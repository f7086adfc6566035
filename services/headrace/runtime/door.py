"""The server interceptor: every call gets its trace, deadline, metrics and errors here, once.

The stock OpenTelemetry interceptor costs 0.11 ms a call even when nothing is sampled; this one about a tenth.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from headrace.runtime.access import visiting
from headrace.runtime.calls import TRACEPARENT, set_deadline
from headrace.runtime.entrance import Entrance
from headrace.runtime.errors import DeadlineError, HeadraceError, InvalidRequestError
from headrace.runtime.open_streams import OpenStreams, Requests, StoppingError
from headrace.runtime.rpc_status import status_of
from headrace.runtime.telemetry import counter, histogram, span

log = logging.getLogger(__name__)

_calls = counter("headrace.rpc.calls", "{call}", "calls served, by method and status")
_duration = histogram("headrace.rpc.duration", "ms", "time to serve a call, by method")

# grpc has no types for handlers: messages in and out are `Any` here, and only here
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Gate: TypeAlias = Callable[[str], HeadraceError | None]


@dataclass(frozen=True, slots=True)
class _Call:
    """What is the same for every call of a method."""

    name: str
    entrance: Entrance | None


class _Malformed:
    """Stands for a request whose bytes are no message of its type."""

    def __init__(self, error: DecodeError) -> None:
        self.reason = str(error)


class Door(grpc.aio.ServerInterceptor):
    """Wraps every method of the server that it is given to.

    `gate` is asked by the method's name before anything of a call is read: why it is refused, or None. `entrance`
    is asked who calls: before the message is read by the credentials, and then by the connection.
    """

    def __init__(self, gate: Gate | None = None, entrance: Entrance | None = None) -> None:
        self._gate = gate
        self._entrance = entrance
        self._wrapped: dict[str, Handler] = {}
        self._streams = OpenStreams()

    def end_streams(self) -> None:
        """Ends watches and streams of requests, where nothing is lost by it: the server stops."""
        self._streams.end()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        method = handler_call_details.method
        if self._gate is not None and (refusal := self._gate(_name(method))) is not None:
            return _refusing(refusal, _name(method))
        if self._entrance is not None and not _is_stock(method):
            try:
                self._entrance.at_headers(_name(method), handler_call_details.invocation_metadata or ())
            except HeadraceError as refusal:
                return _refusing(refusal, _name(method))
        # a server's methods stay as they are, and this is asked at every call
        if (known := self._wrapped.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        wrapped = self._wrapped[method] = _wrapped(handler, method, self._entrance, self._streams)
        return wrapped


def _wrapped(handler: Any, method: str, entrance: Entrance | None, streams: OpenStreams) -> Handler:
    if _is_stock(method):
        return handler  # type: ignore[no-any-return]  # health and reflection come as they are
    call = _Call(_name(method), entrance)
    serializers = {
        "request_deserializer": _lenient(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, call), **serializers)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, call, streams), **serializers)
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(_unary(handler.stream_unary, call), **serializers)
    return grpc.stream_stream_rpc_method_handler(_conversation(handler.stream_stream, call, streams), **serializers)


def _refusing(refusal: HeadraceError, name: str) -> Handler:
    # as if the call had a stream of requests: the one that it has is then neither waited for nor parsed
    async def refuse(requests: AsyncIterator[Any], context: Context) -> NoReturn:
        _calls.add(1, {"method": name, "status": type(refusal).__name__})
        await _abort(context, status_of(refusal))

    return grpc.stream_unary_rpc_method_handler(refuse)


def _is_stock(method: str) -> bool:
    return method.startswith("/grpc.")


def _name(method: str) -> str:
    return method.rsplit("/", 1)[-1]


def _lenient(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | _Malformed]:
    # grpc answers INTERNAL when a deserializer raises; bad bytes are the caller's fault
    def parse(data: bytes) -> Message | _Malformed:
        try:
            return deserialize(data)
        except DecodeError as error:
            return _Malformed(error)

    return parse


def _unary(method: Callable[[Any, Context], Awaitable[Any]], call: _Call) -> Any:
    async def serve(request: Any, context: Context) -> Any:
        async with _served(call, context):
            return await method(_checked(request), context)

    return serve


def _stream(method: Callable[[Any, Context], AsyncIterator[Any]], call: _Call, streams: OpenStreams) -> Any:
    async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
        async with _served(call, context):
            async for response in method(_checked(request), context):
                yield response

    async def watch(request: Any, context: Context) -> AsyncIterator[Any]:
        async with _served(call, context):
            responses = method(_checked(request), context)
            while (response := await streams.unless_stopping(anext(responses, None))) is not None:
                yield response

    # other streams come to their end, which a server that stops waits for
    return watch if call.name.startswith("Watch") else serve


def _conversation(method: Callable[[Any, Context], AsyncIterator[Any]], call: _Call, streams: OpenStreams) -> Any:
    async def serve(requests: Any, context: Context) -> AsyncIterator[Any]:
        async with _served(call, context):
            taken = Requests(aiter(requests), streams)
            async for response in method(_checked(taken), context):
                yield response
            if taken.was_cut:
                raise StoppingError

    return serve


def _checked(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise InvalidRequestError.of("request", f"not a valid message: {request.reason}")
    return _checked_stream(request) if hasattr(request, "__aiter__") else request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    visit, is_first = visiting.get(), True
    async for request in requests:
        # the first was let in with the call
        if visit is not None and not is_first:
            await visit.next_message()
        is_first = False
        yield _checked(request)


@asynccontextmanager
async def _served(call: _Call, context: Context) -> AsyncIterator[None]:
    name, begun = call.name, time.perf_counter()
    left_s = context.time_remaining()
    set_deadline(left_s)
    status = "OK"
    try:
        if left_s is not None and left_s <= 0:
            raise DeadlineError("the caller's deadline passed before the call was taken up")
        if call.entrance is not None:
            call.entrance.at_call(name, context)
        with span(name, parent=_parent(context), kind=SpanKind.SERVER):
            yield
    except HeadraceError as error:
        status = type(error).__name__
        await _abort(context, status_of(error))
    except (grpc.aio.AbortError, grpc.aio.BaseError):
        status = "aborted"
        raise
    except NotImplementedError:
        # what the generated base class raises for a method that a service does not serve
        status = "unimplemented"
        await _abort(context, status_pb2.Status(code=code_pb2.UNIMPLEMENTED, message=f"{name} is not served"))
    except Exception as error:
        status = "bug"
        log.exception("call_failed", extra={"method": name})
        await _abort(context, status_pb2.Status(code=code_pb2.INTERNAL, message=f"{name}: {type(error).__name__}"))
    finally:
        _calls.add(1, {"method": name, "status": status})
        _duration.record((time.perf_counter() - begun) * 1e3, {"method": name})


async def _abort(context: Context, status: status_pb2.Status) -> NoReturn:
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort returned")


def _parent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == TRACEPARENT:
            return str(value)
    return ""
