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
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import torch

from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.atomic import make_directory, remove_unfinished
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.logs import configure_logs
from headrace.runtime.privacy import open_privacy
from headrace.runtime.release_signing import release_signer, release_verifier
from headrace.runtime.serving import Background, Parts, run_service, told
from headrace.runtime.settings import CommonSettings, load
from headrace.trainer.catalogue_text import pretrained_encoder
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.consumer_name import consumer_name
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.distributed import Distributed, joined
from headrace.trainer.follower import Follower
from headrace.trainer.learner_role import learner_role
from headrace.trainer.lineage import Lineage
from headrace.trainer.own_releases import OwnReleases
from headrace.trainer.peers import PeerError, Peers
from headrace.trainer.registry import open_registry, registry_url
from headrace.trainer.registry_role import registry_role
from headrace.trainer.releases import Releases
from headrace.trainer.rollouts.settings import RolloutSettings
from headrace.trainer.server import TrainerServicer
from headrace.trainer.settings import TrainerSettings

log = logging.getLogger(__name__)


@asynccontextmanager
async def compose(
    settings: TrainerSettings,
    common: CommonSettings,
    peers: Peers | None = None,
    rules: RolloutSettings | None = None,
) -> AsyncIterator[Parts]:
    """The trainer over the event log, in its role; a learner writes a checkpoint at the end."""
    torch.set_num_threads(1)
    # first of all: nothing is to be opened when it cannot be had
    encoder = pretrained_encoder(settings) if settings.role != "registry" else None
    folder = common.data_dir / consumer_name(settings.lineage)
    # each lineage has a folder, and all of one data folder have one registry
    shared = common.data_dir / "trainer"
    for needed in {folder, shared}:
        make_directory(needed)
    remove_unfinished(folder)
    async with AsyncExitStack() as stack:
        event_log = open_event_log(common)
        stack.push_async_callback(event_log.close)
        privacy = open_privacy(common)
        registry = stack.enter_context(closing(open_registry(registry_url(settings.registry_url, shared))))
        own_releases = stack.enter_context(closing(OwnReleases(folder / "own-releases.db")))
        store = ArtifactStore(settings.artifacts_url or str((common.data_dir / "artifacts").absolute()))
        releases = Releases(
            store, registry, settings.keep_releases, own_releases, release_signer(common), release_verifier(common)
        )
        background = Background()
        stack.push_async_callback(background.stop)
        decider = None
        if settings.role != "learn":
            decider = await stack.enter_async_context(
                registry_role(
                    settings,
                    common,
                    rules or load(RolloutSettings, {}),
                    registry,
                    releases,
                    event_log,
                    privacy,
                    background,
                )
            )
        learner = None
        if settings.role != "registry":
            learner = await stack.enter_async_context(
                learner_role(
                    settings, common, peers, encoder, registry, releases, own_releases, event_log, privacy, background
                )
            )
        if learner is not None and decider is not None:
            learner.learning.on_release = decider.controller.wake
        servicer = TrainerServicer(
            learner, decider.registry if decider else None, decider.rollouts if decider else None
        )
        yield Parts([servicer.face()], background)


async def follow(settings: TrainerSettings, common: CommonSettings, peers: Distributed) -> None:
    """A rank above 0: learns along, and stops when rank 0 does, since that needs it until then."""
    encoder = pretrained_encoder(settings)
    folder = common.data_dir / consumer_name(settings.lineage)
    checkpoints = Checkpoints(folder / "checkpoints")
    # rank 0 writes the one that counts
    no_log = DeltaLog(Path(":memory:"), settings.lineage, settings.dimension)
    event_log = open_event_log(common)
    own_releases = OwnReleases(folder / "own-releases.db")
    lineage = Lineage(settings, no_log, checkpoints, encoder, peers, open_privacy(common), own_releases)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, log.info, "stops_with_rank_0")
    try:
        await Follower(lineage, peers, event_log).run()
    finally:
        await event_log.close()
        own_releases.close()
        no_log.close()


def main() -> int:
    """Runs the service; 2 when it cannot be started as it is told to, 1 when the others of its learner are lost."""
    return told("trainer", _run)


def _run() -> int:
    settings, rules, common = load(TrainerSettings), load(RolloutSettings), load(CommonSettings)
    try:
        os.nice(settings.niceness)
        peers = joined(os.environ)
        if isinstance(peers, Distributed) and peers.rank > 0:
            configure_logs(f"trainer-{peers.rank}", common.log_level)
            asyncio.run(follow(settings, common, peers))
            return 0
        return run_service("trainer", lambda: compose(settings, common, peers, rules), settings, common)
    except PeerError as error:
        log.error("peers_lost", extra={"reason": str(error)})
        return 1


if __name__ == "__main__":
    sys.exit(main())
