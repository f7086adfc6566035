"""Follows a peer's stream for ever: says once when the peer is lost and once when it is back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from headrace.runtime.errors import HeadraceError

log = logging.getLogger(__name__)

T = TypeVar("T")


async def followed(name: str, watch: Callable[[], AsyncIterator[T]], retry_s: float) -> AsyncIterator[T]:
    """The messages of `watch`, begun again whenever it ends; each beginning starts with a snapshot."""
    is_lost = False
    while True:
        try:
            async for message in watch():
                if is_lost:
                    log.info("peer_found", extra={"stream": name})
                is_lost = False
                yield message
            reason = "the stream ended"
        except HeadraceError as error:
            reason = str(error)
        if not is_lost:
            log.warning("peer_lost", extra={"stream": name, "reason": reason})
        is_lost = True
        await asyncio.sleep(retry_s)
