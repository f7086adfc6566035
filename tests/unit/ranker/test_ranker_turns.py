"""Arithmetic in turns, with new calls taken up between."""

from __future__ import annotations

import asyncio
import contextlib

from headrace.ranker.turns import Turns


class Calls:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        return self.count


async def _work(turns: Turns, name: str, done: list[str]) -> None:
    await turns.next()
    done.append(name)


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_need_not_wait() -> None:
    turns, done = Turns(Calls()), list[str]()
    work = _work(turns, "a", done)
    with contextlib.suppress(StopIteration):
        work.send(None)
    assert done == ["a"]


async def test_several_work_one_after_the_other_in_order_with_rounds_between() -> None:
    turns, done = Turns(Calls()), list[str]()
    tasks = [asyncio.create_task(_work(turns, name, done)) for name in "abc"]
    await asyncio.sleep(0)
    assert done == ["a"]
    await asyncio.gather(*tasks)
    assert done == ["a", "b", "c"]


async def test_work_waits_while_calls_come_but_not_for_ever() -> None:
    calls, done = Calls(), list[str]()
    turns = Turns(calls)
    tasks = [asyncio.create_task(_work(turns, name, done)) for name in "ab"]
    for _ in range(10):
        calls.count += 1
        await asyncio.sleep(0)
    assert done == ["a"]
    for _ in range(40):
        calls.count += 1
        await asyncio.sleep(0)
    assert done == ["a", "b"]
    await asyncio.gather(*tasks)


async def test_a_cancelled_one_holds_nobody_up() -> None:
    turns, done = Turns(Calls()), list[str]()
    tasks = [asyncio.create_task(_work(turns, name, done)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert done == ["a", "c"]


async def test_one_that_is_cancelled_with_its_turn_in_hand_passes_it_on() -> None:
    turns, done = Turns(Calls()), list[str]()
    tasks = [asyncio.create_task(_work(turns, name, done)) for name in "abc"]

    async def cancel_when_given() -> None:
        # runs in the round in which the second one's turn is given, before it takes it up
        while not turns.is_given:  # noqa: ASYNC110  # a round of the loop each
            await asyncio.sleep(0)
        tasks[1].cancel()

    await asyncio.gather(cancel_when_given(), *tasks, return_exceptions=True)
    assert done == ["a", "c"]
