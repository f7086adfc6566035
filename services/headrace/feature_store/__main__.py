"""Runs the feature store: `python -m headrace.feature_store`."""

from __future__ import annotations

import sys

from headrace.runtime.threads import limit_threads

limit_threads()

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.feature_store.row_store import RowStore
from headrace.feature_store.server import FeatureStoreServer
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.store import FeatureStore
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import Background, Parts, run_service, told
from headrace.runtime.settings import CommonSettings, load


@asynccontextmanager
async def compose(settings: FeatureStoreSettings, common: CommonSettings) -> AsyncIterator[Parts]:
    """The feature store over the event log; at the end it writes a snapshot."""
    folder = common.data_dir / "feature-store"
    snapshots = Snapshots(folder / "snapshots")
    state = snapshots.newest(settings.rules())
    rows = RowStore(folder / "rows", settings.row_history_bytes, state.offset)
    log = open_event_log(common)
    store = FeatureStore(log, state, snapshots, rows, settings)
    background = Background()
    background.start(store.follow(), "follow the log")
    background.start(store.publish(), "publish items")
    background.start(store.keep_snapshots(), "keep snapshots")
    try:
        yield Parts([FeatureStoreServer(store).face()], background)
    finally:
        await background.stop()
        await store.close()
        await log.close()


def main() -> int:
    """Runs the service; 2 when it cannot be started as it is told to."""
    return told("feature-store", _run)


def _run() -> int:
    settings, common = load(FeatureStoreSettings), load(CommonSettings)
    return run_service("feature-store", lambda: compose(settings, common), settings, common)


if __name__ == "__main__":
    sys.exit(main())
