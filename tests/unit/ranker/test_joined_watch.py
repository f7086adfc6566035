"""Watches of several shards as one: a snapshot until the last one is whole, then changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from headrace.ranker.feeds import VectorFeed
from headrace.ranker.joined_watch import joined_watch
from headrace.ranker.peers import VectorsUpdate
from headrace.runtime.errors import HeadraceError, NotFoundError


def update(ordinal: int, sequence: int, *, snapshot: bool = False, end: bool = False, gone: bool = False):  # type: ignore[no-untyped-def]
    vector = np.full((1, 2), 0 if gone else sequence, np.float32)
    return VectorsUpdate(snapshot, end, np.array([ordinal], np.uint32), vector, np.array([gone]), sequence, sequence)


async def stream(*messages: VectorsUpdate | Exception, stays_open: bool = False) -> AsyncIterator[VectorsUpdate]:
    for message in messages:
        if isinstance(message, Exception):
            raise message
        yield message
    if stays_open:
        await asyncio.Event().wait()


async def taken(*streams: AsyncIterator[VectorsUpdate]) -> tuple[list[VectorsUpdate], HeadraceError]:
    """What came, and the error that ended it."""
    found: list[VectorsUpdate] = []
    try:
        async with asyncio.timeout(10):
            async for message in joined_watch(streams):
                found.append(message)  # noqa: PERF401  # what came before the error counts
    except HeadraceError as error:
        return found, error
    raise AssertionError("a joined watch never ends without an error")


async def test_changes_of_a_shard_that_is_ahead_belong_to_the_snapshot() -> None:
    quick = stream(update(1, 5, snapshot=True, end=True), update(2, 6), stays_open=True)
    slow = stream(update(3, 4, snapshot=True), update(4, 4, snapshot=True, end=True), update(3, 7, gone=True))
    found, _ = await taken(quick, slow)
    whole = next(place for place, one in enumerate(found) if one.ends_snapshot)
    assert all(one.is_snapshot for one in found[: whole + 1])
    assert not any(one.is_snapshot for one in found[whole + 1 :])
    # never further than the shard that is behind, and nothing before each is whole
    assert all(one.applied_sequence == 0 for one in found[:whole])
    assert found[whole].applied_sequence == 4
    assert found[-1].applied_sequence == 6


async def test_a_feed_holds_the_vectors_of_all_shards() -> None:
    quick = stream(update(1, 5, snapshot=True, end=True), update(2, 6), update(1, 7, gone=True), stays_open=True)
    slow = stream(update(3, 4, snapshot=True), update(4, 4, snapshot=True, end=True), update(3, 7))
    feed = VectorFeed(None, "s", 1.0)  # type: ignore[arg-type]
    # left by an earlier stream: no shard has it any more
    feed.vectors.apply(np.array([9], np.uint32), np.ones((1, 2), np.float32), np.array([False]), 1, 1)
    for message in (await taken(quick, slow))[0]:
        feed.apply(message)
    assert feed.vectors.is_whole
    rows = feed.vectors.rows(np.array([1, 2, 3, 4, 9], np.uint32))
    assert rows[:, 0].tolist() == [0, 6, 7, 4, 0]
    assert feed.vectors.applied_sequence == 7


async def test_a_stream_that_fails_ends_all_of_them_with_its_error() -> None:
    found, error = await taken(stream(NotFoundError("no space 's'")), stream(update(1, 5, snapshot=True)))
    assert isinstance(error, NotFoundError)
    assert len(found) <= 1
    _, error = await taken(stream(update(1, 5, snapshot=True)))
    assert "shard 0 ended" in str(error)
