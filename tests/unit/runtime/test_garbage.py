"""The cycle collector in a service that holds much."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from headrace.runtime.garbage import keep_small


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class _Node:
    other: _Node


async def _until(reached: asyncio.Event) -> None:
    task = asyncio.create_task(keep_small((0.0,), 0.0))
    async with asyncio.timeout(30):
        await reached.wait()
    task.cancel()


async def test_cycles_are_freed_and_what_lives_is_put_aside() -> None:
    before, node, freed = gc.get_freeze_count(), _Node(), asyncio.Event()
    node.other = node
    weakref.finalize(node, freed.set)
    del node

    await _until(freed)

    assert gc.get_freeze_count() > before
    assert gc.get_threshold()[2] > 1_000_000


async def test_what_was_put_aside_is_freed_with_its_last_reference() -> None:
    gone = asyncio.Event()
    task = asyncio.create_task(keep_small((0.0,), 600.0))
    kept = _Node()
    async with asyncio.timeout(30):
        while not gc.get_freeze_count():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
    weakref.finalize(kept, gone.set)
    del kept
    assert gone.is_set()
    task.cancel()
