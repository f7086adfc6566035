from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from headrace.ingest.streaming import answered_in_order


class Writer:
    """Answers a group when it is let, with the items themselves."""

    def __init__(self) -> None:
        self.groups: list[Sequence[int]] = []
        self.let = asyncio.Event()

    async def write(self, group: Sequence[int]) -> Sequence[int]:
        self.groups.append(group)
        await self.let.wait()
        if 13 in group:
            raise ValueError("unlucky")
        return group


class Source:
    """Numbers, as many as are let through; notes how many were taken."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error, self.taken = count, error, 0
        self.ended = asyncio.Event()

    async def items(self) -> AsyncIterator[int]:
        for number in range(self.count):
            await asyncio.sleep(0)
            self.taken += 1
            yield number
        self.ended.set()
        if self.error:
            raise self.error


def answers(source: Source, writer: Writer, *, group: int = 10, unanswered: int = 100) -> AsyncIterator[int]:
    return answered_in_order(source.items(), writer.write, group_limit=group, unanswered_limit=unanswered)


async def collected(stream: AsyncIterator[int], into: list[int]) -> None:
    async for answer in stream:
        into.append(answer)  # noqa: PERF401  # what came before an error must be kept


async def test_every_item_is_answered_once_and_in_order() -> None:
    writer = Writer()
    writer.let.set()
    assert [answer async for answer in answers(Source(12), writer, group=5)] == list(range(12))


async def test_an_empty_stream_has_no_answers() -> None:
    assert [answer async for answer in answers(Source(0), Writer())] == []


async def test_what_arrives_while_groups_are_written_makes_large_groups_within_the_limit() -> None:
    source, writer = Source(12), Writer()
    stream = answers(source, writer, group=4)
    first = asyncio.ensure_future(anext(stream))
    await source.ended.wait()
    # the first four groups began as soon as there was anything
    assert [len(group) for group in writer.groups] == [1, 1, 1, 1]
    writer.let.set()
    assert [await first, *[answer async for answer in stream]] == list(range(12))
    assert [len(group) for group in writer.groups[4:]] == [4, 4]


async def test_nothing_more_is_read_while_too_much_is_unanswered() -> None:
    source, writer = Source(12), Writer()
    stream = answers(source, writer, unanswered=5)
    first = asyncio.ensure_future(anext(stream))
    for _ in range(100):
        await asyncio.sleep(0)
    assert source.taken == 5
    writer.let.set()
    assert [await first, *[answer async for answer in stream]] == list(range(12))


async def test_a_failed_write_ends_the_answers_after_those_before_it() -> None:
    writer = Writer()
    writer.let.set()
    got: list[int] = []
    with pytest.raises(ValueError, match="unlucky"):
        await collected(answers(Source(20), writer, group=1), got)
    assert got == list(range(13))


async def test_a_failed_source_ends_the_answers_after_all_that_came() -> None:
    writer = Writer()
    writer.let.set()
    got: list[int] = []
    with pytest.raises(RuntimeError, match="broken pipe"):
        await collected(answers(Source(6, RuntimeError("broken pipe")), writer), got)
    assert got == list(range(6))


async def test_giving_up_stops_the_reading() -> None:
    source, writer = Source(1_000_000), Writer()
    writer.let.set()
    stream = answers(source, writer)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    taken = source.taken
    for _ in range(50):
        await asyncio.sleep(0)
    assert source.taken == taken
