"""Learns a log in slices, alone or with others as the environment says: `data_dir result slice_records settings`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from headrace.runtime.threads import limit_threads

limit_threads()

import numpy as np  # noqa: E402

from headrace.runtime.eventlog.sqlite import SqliteEventLog  # noqa: E402
from headrace.runtime.privacy import open_privacy  # noqa: E402
from headrace.runtime.settings import CommonSettings  # noqa: E402
from headrace.trainer.distributed import joined  # noqa: E402
from headrace.trainer.learner import Learner  # noqa: E402
from headrace.trainer.log_slices import read_slice  # noqa: E402
from headrace.trainer.records import Slice  # noqa: E402
from headrace.trainer.settings import TrainerSettings  # noqa: E402


async def slices_of(data_dir: Path, size: int) -> list[Slice]:
    log = SqliteEventLog(data_dir / "events.db")
    end, _ = await log.end()
    found = [await read_slice(log, after, min(after + size, end)) for after in range(0, end, size)]
    await log.close()
    return found


def main(data_dir: str, result: str, slice_records: str, settings: str) -> None:
    peers = joined(os.environ)
    privacy = open_privacy(CommonSettings(data_dir=Path(data_dir)))
    learner = Learner(TrainerSettings(**json.loads(settings)), peers=peers, privacy=privacy)
    losses = []
    for number, records in enumerate(asyncio.run(slices_of(Path(data_dir), int(slice_records))), start=1):
        learner.sent.note(learner.learn_products(records.products))
        learned = learner.learn(records, number)
        learner.sent.note(learned.deltas)
        losses.append(learned.loss)
    vectors = learner.item_vectors(np.arange(learner.catalogue.count))
    np.savez(result, losses=np.array(losses), vectors=vectors, **learner.arrays())
    peers.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
