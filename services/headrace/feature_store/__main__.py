"""Runs the feature store: `python -m headrace.feature_store`."""

from __future__ import annotations

import sys

from headrace.runtime.threads import limit_threads

limit_threads()

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from headrace.feature_store.erasing import Erasing, consumer_name
from headrace.feature_store.feature_names import FeatureNames
from headrace.feature_store.fold import State
from headrace.feature_store.point_in_time import PointInTime
from headrace.feature_store.row_store import RowStore
from headrace.feature_store.server import FeatureStoreServer
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.store import FeatureStore
from headrace.feature_store.tier_opening import open_user_tier
from headrace.feature_store.user_tier import UserTier
from headrace.feature_store.view_registry import register, views_of_module
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.atomic import remove_unfinished
from headrace.runtime.confirmations import Confirmations
from headrace.runtime.errors import FailedPreconditionError, UnavailableError
from headrace.runtime.eventlog.behind import watch_behind
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.outage import Outage
from headrace.runtime.privacy import open_privacy
from headrace.runtime.serving import Background, Parts, run_service, told
from headrace.runtime.settings import CommonSettings, load

# a Redis that starts beside this process, and reads what it holds
_START_S = 60.0
_RETRY_AFTER_S = 0.2


@asynccontextmanager
async def compose(
    settings: FeatureStoreSettings, common: CommonSettings, views: Sequence[WindowedView] = ()
) -> AsyncIterator[Parts]:
    """The feature store over the event log, with declared `views`; at the end it writes a snapshot."""
    folder = _folder(settings, common)
    remove_unfinished(folder)
    tier, snapshots, state = await _restored(folder / "snapshots", settings, views)
    rows = RowStore(folder / "rows", settings.row_history_bytes, state.offset)
    if snapshots.was_refused and not state.offset:
        await _require_beginning(common, folder / "snapshots")
    log = open_event_log(common)
    past = PointInTime(log, Snapshots(folder / "snapshots"), settings.rules(), views, settings.read_limit)
    privacy = open_privacy(common)
    confirmations = Confirmations(folder / "erasures.json", consumer_name(settings.rules().shard), privacy)
    erasing = Erasing(log, snapshots, confirmations, privacy)
    store = FeatureStore(log, state, tier, snapshots, rows, settings, FeatureNames(views), past, erasing)
    background = Background()
    background.start(store.follower.follow(), "follow the log")
    background.start(store.follower.back_fill(), "back-fill views")
    background.start(watch_behind(log, lambda: store.offset), "watch how far the log is")
    background.start(store.drift.watch(settings.drift_every_s), "watch drift")
    background.start(store.items.publish(), "publish items")
    background.start(store.keeper.keep_snapshots(), "keep snapshots")
    background.start(store.keeper.keep_erasures(), "keep erasures")
    try:
        yield Parts([FeatureStoreServer(store).face()], background)
    finally:
        await background.stop()
        await store.close()
        await log.close()
        tier.close()


def _folder(settings: FeatureStoreSettings, common: CommonSettings) -> Path:
    """Where the store keeps its files: shards beside one another, since they may read one embedded log."""
    shard = settings.rules().shard
    return common.data_dir / ("feature-store" if shard.count == 1 else f"feature-store-{shard.number}-of-{shard.count}")


async def _restored(
    folder: Path, settings: FeatureStoreSettings, views: Sequence[WindowedView]
) -> tuple[UserTier, Snapshots, State]:
    """The users' tier and the newest state; a tier that is away gets some time. UnavailableError afterwards."""
    outage, until_s = Outage("user tier", "start"), time.monotonic() + _START_S
    while True:
        try:
            tier = open_user_tier(settings.redis_url)
            snapshots = Snapshots(folder, tier)
            state = await asyncio.to_thread(snapshots.newest, settings.rules(), views)
        except UnavailableError as error:
            if time.monotonic() > until_s:
                raise
            outage.begin(error)
            await asyncio.sleep(_RETRY_AFTER_S)
        else:
            outage.end()
            return tier, snapshots, state


async def _require_beginning(common: CommonSettings, snapshots: Path) -> None:
    """FailedPreconditionError when the log was trimmed: a state folded from it would lack what the lost one had."""
    log = open_event_log(common)
    try:
        first = await log.read(0, limit=1)
    finally:
        await log.close()
    if first and first[0].offset > 1:
        raise FailedPreconditionError(
            f"no snapshot in {snapshots} can be used (see the warnings above), and the log begins at offset "
            f"{first[0].offset}: what was before it would be missing; remove the folder to fold what is left"
        )


def main() -> int:
    """Runs the service; 2 when it cannot be started as it is told to."""
    return told("feature-store", _run)


def _run() -> int:
    settings, common = load(FeatureStoreSettings), load(CommonSettings)
    views = views_of_module(settings.views)
    register(_folder(settings, common) / "views.json", views)
    return run_service("feature-store", lambda: compose(settings, common, views), settings, common)


if __name__ == "__main__":
    sys.exit(main())
