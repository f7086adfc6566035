"""A rank above 0 of a learner of several processes: does to its state what rank 0 does to its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from headrace.runtime.eventlog import EventLog
from headrace.runtime.outage import Outage
from headrace.trainer.acts import STOP
from headrace.trainer.distributed import Distributed
from headrace.trainer.lineage import Lineage
from headrace.trainer.log_slices import read_slice

log = logging.getLogger(__name__)
T = TypeVar("T")


class Follower:
    """Drives a `Lineage` by what rank 0 says; reads the log and the checkpoints, and writes nothing."""

    def __init__(self, lineage: Lineage, peers: Distributed, event_log: EventLog) -> None:
        self._lineage = lineage
        self._peers = peers
        self._log = event_log
        self._worker = ThreadPoolExecutor(1, "learner", initializer=torch.set_num_threads, initargs=(1,))

    async def run(self) -> None:
        """Learns along until rank 0 stops. PeerError: it vanished, or came out otherwise."""
        log.info("following", extra={"rank": self._peers.rank, "size": self._peers.size})
        patience = Outage("event log", "follow")
        while (act := await self._work(self._peers.hear)).kind != STOP:
            records = await patience.insist(partial(read_slice, self._log, act.after, act.until))
            await self._work(partial(self._lineage.follow, act, records))
        await self._work(self._peers.leave)
        self._worker.shutdown()
        log.info("stopped", extra={"rank": self._peers.rank})

    async def _work(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)
