"""What the event log's contract does in processes of their own: `location command …`."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from headrace.runtime.eventlog import EventLog, Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings


def open_log(location: str, *, max_waiting: int = 50_000) -> EventLog:
    """The log of a backend at a place; opening it twice gives two views of one log."""
    # of a server's log: its URL, and the folder of this machine
    folder, _, url = location.partition("|")
    common = CommonSettings(data_dir=Path(folder), event_log_url=url)
    return open_event_log(common, max_waiting=max_waiting)


def record(event_id: str, *, kind: str = "user-event", key: str = "u:1", payload: bytes = b"x") -> Record:
    return Record(kind, key, event_id, 1_000, payload)


async def append_for_ever(log: EventLog, prefix: str, seed: str) -> None:
    """Appends batches of random size and says which ids are acknowledged, until it is killed."""
    sizes = random.Random(int(seed))
    number = 0
    while True:
        batch = [record(f"{prefix}-{number + extra}") for extra in range(sizes.randint(1, 20))]
        number += len(batch)
        await log.append(batch)
        print("\n".join(one.event_id for one in batch), flush=True)


async def append_some(log: EventLog, prefix: str, count: str) -> None:
    """Appends single records; prints their offsets."""
    for number in range(int(count)):
        print((await log.append([record(f"{prefix}-{number}")]))[0].offset, flush=True)


async def append_hard(log: EventLog, prefix: str, count: str) -> None:
    """Appends single records, thirty calls at a time."""
    numbers = iter(range(int(count)))

    async def append_next() -> None:
        for number in numbers:
            await log.append([record(f"{prefix}-{number}", key=f"u:{number % 97}")])

    await asyncio.gather(*(append_next() for _ in range(30)))


async def follow(log: EventLog, count: str) -> None:
    """Follows the log by offset until it saw `count` records; prints their ids in the order seen."""
    print("ready", flush=True)
    after, seen = 0, 0
    while seen < int(count):
        for found in await log.read(after, limit=7):
            print(found.event_id)
            after, seen = found.offset, seen + 1


async def main(location: str, command: str, *arguments: str) -> None:
    log = open_log(location)
    commands = {
        "append-for-ever": append_for_ever,
        "append-some": append_some,
        "append-hard": append_hard,
        "follow": follow,
    }
    await commands[command](log, *arguments)
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
