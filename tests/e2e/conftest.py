"""The five services as real processes, shared by the end-to-end tests of one module."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from headrace.cli.suite import Suite

Eventually = Callable[..., Awaitable[None]]


@pytest.fixture(scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    async with Suite(tmp_path_factory.mktemp("suite")) as running:
        yield running


@pytest.fixture(scope="module")
def eventually() -> Eventually:
    """Waits until an async condition holds; fails with its last answer when it never does."""

    async def wait(condition: Callable[[], Awaitable[object]], timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        while not (answer := await condition()):
            assert time.monotonic() < end, f"still {answer!r} after {timeout_s:g} s"
            await asyncio.sleep(0.05)

    return wait
