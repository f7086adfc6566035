"""What a call carries besides its message: the time that is left and the trace it belongs to."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TypedDict

from headrace.runtime.errors import DeadlineError
from headrace.runtime.telemetry import traceparent

TRACEPARENT = "traceparent"

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class CallOptions(TypedDict):
    """Keyword arguments of a gRPC stub's method."""

    timeout: float | None
    metadata: tuple[tuple[str, str], ...]


def set_deadline(seconds_left: float | None) -> None:
    """Notes when the call that is being served must be answered."""
    _deadline.set(None if seconds_left is None else time.monotonic() + seconds_left)


def remaining_s() -> float | None:
    """Seconds until the deadline of the call being served; None when it has none."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - time.monotonic()


def call_options(timeout_s: float | None = None) -> CallOptions:
    """Options for a call to another service: the tighter of `timeout_s` and what is left.

    Raises DeadlineError when nothing is left: `stub.Search(request, **call_options(0.05))`.
    """
    left = remaining_s()
    if left is not None:
        timeout_s = left if timeout_s is None else min(timeout_s, left)
    if timeout_s is not None and timeout_s <= 0:
        raise DeadlineError("no time left to ask another service")
    current = traceparent()
    return {"timeout": timeout_s, "metadata": ((TRACEPARENT, current),) if current else ()}
