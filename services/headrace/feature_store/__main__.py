"""Runs the feature store: `python -m headrace.feature_store`."""

from __future__ import annotations

import sys

from headrace.runtime.threads import limit_threads

limit_threads()

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from headrace.feature_store.feature_names import FeatureNames
from headrace.feature_store.row_store import RowStore
from headrace.feature_store.server import FeatureStoreServer
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.store import FeatureStore
from headrace.feature_store.view_registry import register, views_of_module
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import Background, Parts, run_service
from headrace.runtime.settings import CommonSettings, SettingsError, load


@asynccontextmanager
async def compose(
    settings: FeatureStoreSettings, common: CommonSettings, views: Sequence[WindowedView] = ()
) -> AsyncIterator[Parts]:
    """The feature store over the event log, with declared `views`; at the end it writes a snapshot."""
    folder = common.data_dir / "feature-store"
    snapshots = Snapshots(folder / "snapshots")
    state = snapshots.newest(settings.rules(), views)
    rows = RowStore(folder / "rows", settings.row_history_bytes, state.offset)
    log = open_event_log(common)
    store = FeatureStore(log, state, snapshots, rows, settings, FeatureNames(views))
    background = Background()
    background.start(store.follow(), "follow the log")
    background.start(store.back_fill(), "back-fill views")
    background.start(store.drift.watch(settings.drift_every_s), "watch drift")
    background.start(store.publish(), "publish items")
    background.start(store.keep_snapshots(), "keep snapshots")
    try:
        yield Parts([FeatureStoreServer(store).face()], background)
    finally:
        await background.stop()
        await store.close()
        await log.close()


def main() -> int:
    """Runs the service; 2 when the environment does not fit."""
    try:
        settings, common = load(FeatureStoreSettings), load(CommonSettings)
        views = views_of_module(settings.views)
        register(common.data_dir / "feature-store" / "views.json", views)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # there are no logs before the settings
        return 2
    return run_service("feature-store", lambda: compose(settings, common, views), settings, common)


if __name__ == "__main__":
    sys.exit(main())
