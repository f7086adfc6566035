"""Appends to an event log and notes what was acknowledged: `folder url journal seed batches`.

Several callers at once, each its batches in order, from the first one on: a run after a kill sends all of them again,
as a client does that lost its notes.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

from benchmarks.power_loss.journal import Acknowledgements
from headrace.runtime.eventlog import EventLog, Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings

CALLERS = 3


def batch_of(caller: int, number: int, seed: int) -> list[Record]:
    """What a caller sends as its batch of that number: the same in every run."""
    chance = random.Random(f"{seed} {caller} {number}")
    names = [f"c{caller}-{number}-{extra}" for extra in range(chance.randint(1, 12))]
    return [Record("user-event", f"u:{name}", name, number, chance.randbytes(chance.randint(1, 900))) for name in names]


async def call(log: EventLog, caller: int, seed: int, batches: int, acknowledgements: Acknowledgements) -> None:
    for number in range(batches):
        records = batch_of(caller, number, seed)
        placed = await log.append(records)
        told = {record.event_id: place.offset for record, place in zip(records, placed, strict=True)}
        acknowledgements.note(json.dumps(told).encode())


async def main(folder: str, url: str, journal: str, seed: str, batches: str) -> None:
    log = open_event_log(CommonSettings(data_dir=Path(folder), event_log_url=url))
    acknowledgements = Acknowledgements(Path(journal))
    calls = (call(log, caller, int(seed), int(batches), acknowledgements) for caller in range(CALLERS))
    await asyncio.gather(*calls)
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
