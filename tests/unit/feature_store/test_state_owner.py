"""Reads between the jobs on a state: at once where nothing runs, else as soon as a job makes room."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headrace.feature_store.state_owner import StateOwner


async def test_a_read_takes_place_at_once_where_nothing_runs() -> None:
    owner = StateOwner()
    await owner.run(lambda: None)
    assert await owner.read(threading.get_ident) == threading.get_ident()
    owner.close()


async def test_a_read_waits_for_the_job_that_runs_and_tells_it() -> None:
    owner, begun = StateOwner(), threading.Event()

    def fold() -> None:
        begun.set()
        while not owner.is_wanted:
            pass
        seen.append("folded")

    seen: list[str] = []
    job = asyncio.create_task(owner.run(fold))
    await asyncio.to_thread(begun.wait)
    assert await owner.read(lambda: list(seen)) == ["folded"]
    assert not owner.is_wanted
    await job
    owner.close()


async def test_a_job_whose_caller_went_away_still_keeps_reads_off_the_state() -> None:
    owner, begun, may_end = StateOwner(), threading.Event(), threading.Event()

    def fold() -> None:
        begun.set()
        may_end.wait()

    job = asyncio.create_task(owner.run(fold))
    await asyncio.to_thread(begun.wait)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    read = asyncio.create_task(owner.read(threading.get_ident))
    done, _ = await asyncio.wait([read], timeout=0.05)
    assert not done
    may_end.set()
    assert await read != threading.get_ident()
    owner.close()
