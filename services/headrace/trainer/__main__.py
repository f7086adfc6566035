"""Runs the trainer: `python -m headrace.trainer`, or several that learn together: `torchrun … -m headrace.trainer`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from headrace.runtime.threads import limit_threads

limit_threads()

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path

import torch

from headrace.model.towers import VECTOR_FORM
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.atomic import remove_unfinished
from headrace.runtime.channels import open_channel
from headrace.runtime.confirmations import Confirmations
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.logs import configure_logs
from headrace.runtime.privacy import open_privacy
from headrace.runtime.serving import Background, Parts, run_service, told
from headrace.runtime.settings import CommonSettings, load
from headrace.runtime.shard_addresses import addresses_of
from headrace.runtime.tls import tls_files
from headrace.trainer.catalogue_text import pretrained_encoder
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.distributed import Distributed, joined
from headrace.trainer.follower import Follower
from headrace.trainer.index_replica import Fit
from headrace.trainer.lineage import Lineage
from headrace.trainer.loop import LearningLoop
from headrace.trainer.peers import PeerError, Peers
from headrace.trainer.plan_board import PlanBoard
from headrace.trainer.publisher import Publisher
from headrace.trainer.registry import open_registry, registry_url
from headrace.trainer.releases import Releases
from headrace.trainer.row_shards import training_rows
from headrace.trainer.server import TrainerServicer
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.space_keeper import SpaceKeeper

log = logging.getLogger(__name__)


@asynccontextmanager
async def compose(
    settings: TrainerSettings, common: CommonSettings, peers: Peers | None = None
) -> AsyncIterator[Parts]:
    """The trainer over the event log; at the end it writes a checkpoint."""
    torch.set_num_threads(1)
    # first of all: nothing is to be opened when it cannot be had
    encoder = pretrained_encoder(settings)
    event_log = open_event_log(common)
    folder = common.data_dir / "trainer"
    remove_unfinished(folder)
    delta_log = DeltaLog(folder / "deltas.db", settings.lineage, settings.dimension, VECTOR_FORM)
    registry = open_registry(registry_url(settings.registry_url, folder))
    releases = Releases(
        ArtifactStore(settings.artifacts_url or str((common.data_dir / "artifacts").absolute())),
        registry,
        settings.keep_releases,
    )
    tls = tls_files(common)
    index = [
        [(address, open_channel(address, tls=tls)) for address in shard]
        for shard in addresses_of(settings.index_address)
    ]
    feature_store = [
        [open_channel(address, tls=tls) for address in shard] for shard in addresses_of(settings.feature_store_address)
    ]
    privacy = open_privacy(common)
    lineage = Lineage(settings, delta_log, Checkpoints(folder / "checkpoints"), encoder, peers, privacy)
    confirmations = Confirmations(folder / "erasures.json", "trainer", privacy)
    board = PlanBoard(registry.plan())
    fit = Fit(settings.activate_coverage, settings.activate_recall)
    publisher = Publisher(index, delta_log, settings.dimension, settings.compact_rows, fit)
    learning = LearningLoop(
        settings, event_log, lineage, delta_log, releases, board, publisher.wake, confirmations, privacy
    )
    publisher.on_new_space = learning.want_release
    learning.is_filled = publisher.has_filled
    keeper = SpaceKeeper(index, delta_log, releases, board, settings.keep_spaces)
    background = Background()
    background.start(learning.run(), "learn")
    background.start(learning.follow_rows(training_rows(feature_store)), "learn rows")
    background.start(publisher.run(), "publish deltas")
    background.start(keeper.run(), "drop spaces")
    servicer = TrainerServicer(event_log, lineage, learning, publisher, registry, releases, board)
    try:
        yield Parts([servicer.face()], background)
    finally:
        await background.stop()
        await learning.close()
        lineage.leave()
        for channel in (*chain.from_iterable(feature_store), *(channel for shard in index for _, channel in shard)):
            await channel.close()
        await event_log.close()
        registry.close()
        delta_log.close()


async def follow(settings: TrainerSettings, common: CommonSettings, peers: Distributed) -> None:
    """A rank above 0: learns along, and stops when rank 0 does, since that needs it until then."""
    encoder = pretrained_encoder(settings)
    checkpoints = Checkpoints(common.data_dir / "trainer" / "checkpoints")
    # rank 0 writes the one that counts
    no_log = DeltaLog(Path(":memory:"), settings.lineage, settings.dimension)
    event_log = open_event_log(common)
    lineage = Lineage(settings, no_log, checkpoints, encoder, peers, open_privacy(common))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, log.info, "stops_with_rank_0")
    try:
        await Follower(lineage, peers, event_log).run()
    finally:
        await event_log.close()
        no_log.close()


def main() -> int:
    """Runs the service; 2 when it cannot be started as it is told to, 1 when the others of its learner are lost."""
    return told("trainer", _run)


def _run() -> int:
    settings, common = load(TrainerSettings), load(CommonSettings)
    try:
        os.nice(settings.niceness)
        peers = joined(os.environ)
        if isinstance(peers, Distributed) and peers.rank > 0:
            configure_logs(f"trainer-{peers.rank}", common.log_level)
            asyncio.run(follow(settings, common, peers))
            return 0
        return run_service("trainer", lambda: compose(settings, common, peers), settings, common)
    except PeerError as error:
        log.error("peers_lost", extra={"reason": str(error)})
        return 1


if __name__ == "__main__":
    sys.exit(main())
