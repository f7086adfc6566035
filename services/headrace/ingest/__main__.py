"""Composes the door and serves it until it is asked to stop."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.ingest.cancellations import Purchases
from headrace.ingest.catalogue import Catalogue
from headrace.ingest.cleaning import Limits, Rules
from headrace.ingest.fact_intake import FactIntake
from headrace.ingest.intake import EventIntake
from headrace.ingest.remembering import remember_newest
from headrace.ingest.retention import Retention
from headrace.ingest.server import IngestServicer, face
from headrace.ingest.settings import IngestSettings
from headrace.ingest.storage import open_store
from headrace.runtime.clock import MICROSECONDS
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.serving import Background, Parts, run_service, told
from headrace.runtime.settings import CommonSettings, load

_TRIM_EVERY_S = 600.0


@asynccontextmanager
async def compose(settings: IngestSettings, common: CommonSettings) -> AsyncIterator[Parts]:
    """The door's parts, opened; closed at the end."""
    log = open_event_log(common, max_waiting=settings.max_waiting_records)
    store = open_store(settings.database_url, common.data_dir / "ingest")
    background = Background()
    try:
        await store.migrate()
        rules = Rules(_limits(settings))
        catalogue = Catalogue(store, log, listed=rules.list_product)
        await catalogue.open()
        await remember_newest(rules, log, settings.remembered_records)
        purchases = Purchases(log, window=settings.cancel_window_records)
        await purchases.catch_up()
        intake = EventIntake(
            log=log,
            catalogue=catalogue,
            store=store,
            purchases=purchases,
            rules=rules,
            max_inside=settings.max_waiting_records,
        )
        servicer = IngestServicer(
            intake=intake,
            catalogue=catalogue,
            facts=FactIntake(log=log, catalogue=catalogue),
            store=store,
            log=log,
            stream_batch_events=settings.stream_batch_events,
            max_unacknowledged=settings.max_unacknowledged,
            settings=settings.model_dump(),
        )
        background.start(Retention(log, catalogue, common.event_log_retention_days).run(_TRIM_EVERY_S), "trim the log")
        yield Parts([face(servicer)], background)
    finally:
        await background.stop()
        await store.close()
        await log.close()


def _limits(settings: IngestSettings) -> Limits:
    return Limits(
        earliest_us=int(settings.min_event_time.timestamp() * MICROSECONDS),
        max_future_skew_us=int(settings.max_future_skew_s * MICROSECONDS),
        require_event_ids=settings.require_event_ids,
        bot_events_per_minute=settings.bot_events_per_minute,
        bot_views=settings.bot_views,
        bot_views_per_minute=settings.bot_views_per_minute,
        bot_refusal_us=int(settings.bot_refusal_minutes * 60 * MICROSECONDS),
        repeat_window_us=settings.repeat_window_ms * 1_000,
        outlier_score=settings.outlier_score,
    )


def main() -> int:
    """Runs the service; 2 when it cannot be started as it is told to."""
    return told("ingest", _run)


def _run() -> int:
    settings, common = load(IngestSettings), load(CommonSettings)
    return run_service("ingest", lambda: compose(settings, common), settings, common)


if __name__ == "__main__":
    sys.exit(main())
