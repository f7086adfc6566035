"""Runs the index: `python -m headrace.index`."""

from __future__ import annotations

from headrace.runtime.threads import limit_threads

limit_threads()

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

from headrace.index.devices import InMemory, segment_maker
from headrace.index.peers import Peer
from headrace.index.replication import Replication
from headrace.index.searching import Searcher, default_threads
from headrace.index.server import IndexServicer, Pools, Standing
from headrace.index.settings import IndexSettings
from headrace.index.store import Store
from headrace.runtime.errors import UnavailableError
from headrace.runtime.serving import Background, Parts, run_service, told
from headrace.runtime.settings import CommonSettings, load
from headrace.runtime.shard_addresses import replicas_of
from headrace.runtime.shards import Shard
from headrace.runtime.tls import tls_files

log = logging.getLogger(__name__)

_READERS = 2
_LOOK_EVERY_S = 1.0


@asynccontextmanager
async def compose(settings: IndexSettings, common: CommonSettings) -> AsyncIterator[Parts]:
    """The parts of a running index, once it is as far as its replicas; a snapshot is written at the end."""
    maker = segment_maker(settings.device, InMemory(settings.segment, settings.cells_from, settings.recall_goal))
    shard = Shard.parsed(settings.shard)
    async with AsyncExitStack() as stack:
        stack.callback(maker.close)
        pools = Pools(
            Searcher(
                settings.search_threads or default_threads(), settings.max_searches, settings.check_share, maker.at_once
            ),
            stack.enter_context(ThreadPoolExecutor(_READERS, thread_name_prefix="index-reader")),
        )
        stack.callback(pools.searcher.close)
        store = Store(common.data_dir / "index", maker.make, settings.wal_file_mb << 20, shard)
        stack.push_async_callback(store.close)
        standing = Standing()
        replication = Replication(store, _peers(settings, common, stack), standing.instance, standing.divergences)
        await replication.catch_up(settings.peers_wait_s)
        background = Background()
        stack.push_async_callback(background.stop)
        background.start(_keep_snapshots(store, settings), "snapshots")
        background.start(replication.run(settings.compare_every_s), "replication")
        face = IndexServicer(store, pools, settings, maker.reason, standing).face()
        yield Parts([face], background, queues={"searches": lambda: pools.searcher.running})


def _peers(settings: IndexSettings, common: CommonSettings, stack: AsyncExitStack) -> list[Peer]:
    peers = [Peer(address, tls_files(common)) for address in replicas_of(settings.peers)] if settings.peers else []
    for peer in peers:
        stack.push_async_callback(peer.close)
    return peers


async def _keep_snapshots(store: Store, settings: IndexSettings) -> None:
    while True:
        await asyncio.sleep(min(_LOOK_EVERY_S, settings.snapshot_every_s))
        waiting = store.unsnapshotted
        if waiting.size_bytes < settings.snapshot_every_mb << 20 and waiting.age_s < settings.snapshot_every_s:
            continue
        try:
            await store.snapshot()
        except UnavailableError as error:
            # the log still holds everything: only a restart gets slower
            log.error("snapshot_failed", extra={"reason": str(error)})


def main() -> int:
    """Runs the service; 2 when it cannot be started as it is told to."""
    return told("index", _run)


def _run() -> int:
    settings, common = load(IndexSettings), load(CommonSettings)
    return run_service("index", lambda: compose(settings, common), settings, common)


if __name__ == "__main__":
    sys.exit(main())
