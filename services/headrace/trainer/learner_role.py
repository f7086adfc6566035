"""What makes a process a learner: it learns from the log, sends the index what it learned, and publishes releases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain

from headrace.model.text.encoder import TextEncoder
from headrace.model.towers import VECTOR_FORM
from headrace.runtime.channels import open_channel
from headrace.runtime.confirmations import Confirmations
from headrace.runtime.eventlog import EventLog
from headrace.runtime.eventlog.behind import watch_behind
from headrace.runtime.privacy import Privacy
from headrace.runtime.serving import Background
from headrace.runtime.settings import CommonSettings
from headrace.runtime.shard_addresses import addresses_of
from headrace.runtime.tls import tls_files
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.consumer_name import consumer_name
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.index_channels import close_channels, index_channels
from headrace.trainer.index_replica import Fit
from headrace.trainer.lineage import Lineage
from headrace.trainer.loop import LearningLoop
from headrace.trainer.own_releases import OwnReleases
from headrace.trainer.peers import Peers
from headrace.trainer.publisher import Publisher
from headrace.trainer.registry import Registry
from headrace.trainer.releases import Releases
from headrace.trainer.row_shards import training_rows
from headrace.trainer.served_lineage import ServedLineage
from headrace.trainer.settings import TrainerSettings
from headrace.trainer.space_keeper import SpaceKeeper
from headrace.trainer.training_face import LearnerParts


@asynccontextmanager
async def learner_role(
    settings: TrainerSettings,
    common: CommonSettings,
    peers: Peers | None,
    encoder: TextEncoder | None,
    registry: Registry,
    releases: Releases,
    own_releases: OwnReleases,
    event_log: EventLog,
    privacy: Privacy,
    background: Background,
) -> AsyncIterator[LearnerParts]:
    """The role's parts, at work while open; at the end it writes a checkpoint."""
    folder = common.data_dir / consumer_name(settings.lineage)
    delta_log = DeltaLog(folder / "deltas.db", settings.lineage, settings.dimension, VECTOR_FORM)
    tls, index = tls_files(common), index_channels(settings, common)
    feature_store = [
        [open_channel(address, tls=tls) for address in shard] for shard in addresses_of(settings.feature_store_address)
    ]
    lineage = Lineage(settings, delta_log, Checkpoints(folder / "checkpoints"), encoder, peers, privacy, own_releases)
    confirmations = Confirmations(folder / "erasures.json", consumer_name(settings.lineage), privacy)
    fit = Fit(settings.activate_coverage, settings.activate_recall)
    publisher = Publisher(index, delta_log, settings.dimension, settings.compact_rows, fit)
    learning = LearningLoop(settings, event_log, lineage, delta_log, releases, publisher.wake, confirmations, privacy)
    served = ServedLineage(registry)
    served.look()
    publisher.on_new_space, publisher.serving = learning.want_release, lambda: served.name
    learning.is_filled, learning.serving = publisher.has_filled, publisher.serving
    keeper = SpaceKeeper(index, delta_log, releases, served, settings.keep_spaces)
    background.start(learning.run(), "learn")
    background.start(learning.follow_rows(training_rows(feature_store)), "learn rows")
    background.start(watch_behind(event_log, lambda: lineage.standing.offset), "watch how far the log is")
    background.start(publisher.run(), "publish deltas")
    background.start(keeper.run(), "drop spaces")
    try:
        yield LearnerParts(event_log, lineage, learning, publisher, lambda: registry.newest_of(settings.lineage))
    finally:
        await background.stop()
        await learning.close()
        lineage.leave()
        for channel in chain.from_iterable(feature_store):
            await channel.close()
        await close_channels(index)
        delta_log.close()
