"""Composes the door and serves it until it is asked to stop."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.ingest.attributions import Attributions
from headrace.ingest.cancellations import Purchases
from headrace.ingest.catalogue import Catalogue
from headrace.ingest.cleaning import Limits, Rules
from headrace.ingest.dead_letters import keep_young
from headrace.ingest.fact_intake import FactIntake
from headrace.ingest.forgetting import Forgetting, Manner
from headrace.ingest.forgotten import Forgotten
from headrace.ingest.intake import EventIntake
from headrace.ingest.ledger import Ledger
from headrace.ingest.remembering import remember_newest
from headrace.ingest.retention import Retention
from headrace.ingest.server import IngestServicer, face
from headrace.ingest.settings import IngestSettings
from headrace.ingest.storage import open_store
from headrace.model.attribution import Tokens
from headrace.runtime.clock import MICROSECONDS
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.privacy import Privacy, open_privacy
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
        privacy = open_privacy(common)
        attributions = _attributions(settings, privacy)
        await remember_newest((rules.remember, attributions.remember), log, settings.remembered_records)
        purchases = Purchases(log, window=settings.cancel_window_records)
        await purchases.catch_up()
        forgotten = Forgotten(privacy)
        intake = EventIntake(
            log=log,
            catalogue=catalogue,
            store=store,
            purchases=purchases,
            rules=rules,
            max_inside=settings.max_waiting_records,
            forgotten=forgotten,
            attributions=attributions,
        )
        facts = FactIntake(log=log, catalogue=catalogue, forgotten=forgotten)
        forgetting = Forgetting(
            event_log=log,
            store=store,
            ledger=Ledger(store),
            intakes=(intake, facts),
            forgotten=forgotten,
            purchases=purchases,
            rules=rules,
            privacy=privacy,
            manner=_manner(settings),
        )
        await forgetting.open()
        background.start(forgetting.keep_fresh(), "keep the ledger of forgotten people fresh")
        background.start(keep_young(store, settings.dead_letter_days), "let old dead letters go")
        servicer = IngestServicer(
            intake=intake,
            catalogue=catalogue,
            facts=facts,
            store=store,
            log=log,
            forgetting=forgetting,
            stream_batch_events=settings.stream_batch_events,
            max_unacknowledged=settings.max_unacknowledged,
            settings=settings.model_dump(),
        )
        background.start(Retention(log, catalogue, common.event_log_retention_days).run(_TRIM_EVERY_S), "trim the log")
        yield Parts([face(servicer)], background, queues={"events": lambda: intake.inside})
    finally:
        await background.stop()
        await store.close()
        await log.close()


def _manner(settings: IngestSettings) -> Manner:
    return Manner(
        consumers=tuple(name.strip() for name in settings.forget_consumers.split(",") if name.strip()),
        deadline_s=settings.forget_deadline_s,
        settle_s=settings.forget_settle_s,
        refresh_s=max(0.05, settings.forget_settle_s / 2),
    )


def _attributions(settings: IngestSettings, privacy: Privacy) -> Attributions:
    return Attributions(
        Tokens(privacy.derived("attribution tokens")),
        max_age_us=int(settings.token_days * 86_400 * MICROSECONDS),
        skew_us=int(settings.max_future_skew_s * MICROSECONDS),
    )


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
