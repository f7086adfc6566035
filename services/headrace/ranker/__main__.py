"""Runs the ranker: `python -m headrace.ranker`."""

from __future__ import annotations

from headrace.runtime.threads import limit_threads

limit_threads()

import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from headrace.model.attribution import Tokens
from headrace.model.items import Items
from headrace.model.text.pretrained import Pretrained
from headrace.ranker.admission import Admission
from headrace.ranker.answering import Answering
from headrace.ranker.arms import Arms
from headrace.ranker.assignment import Assigner
from headrace.ranker.breaker import Breaker
from headrace.ranker.canary_answer import AnswerCheck
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.feature_store import open_feature_store
from headrace.ranker.feeds import ItemFeed, VectorFeed
from headrace.ranker.filters import Filters
from headrace.ranker.gate_zero import GateZero, signature_check
from headrace.ranker.hop import CanaryTrack
from headrace.ranker.impressions import ImpressionLog
from headrace.ranker.index_shards import open_index
from headrace.ranker.lexical import LexicalIndex
from headrace.ranker.loading import ReleaseLoader
from headrace.ranker.paired import Sums
from headrace.ranker.peers import TrainerPeer
from headrace.ranker.plan import HeldPlan
from headrace.ranker.rank import CandidateRanker
from headrace.ranker.readiness import able_to_answer
from headrace.ranker.recommend import Recommender
from headrace.ranker.releases import Releases
from headrace.ranker.report_peer import ReportPeer
from headrace.ranker.reporting import Instance, Reporter, ServingReport
from headrace.ranker.search import ProductSearch
from headrace.ranker.server import ANSWERS, RankerServicer, Status, recorded
from headrace.ranker.settings import RankerSettings
from headrace.ranker.shadow import Report, Shadow
from headrace.ranker.sources import Sources
from headrace.ranker.trust import Forwarders, may_force
from headrace.ranker.turns import Turns
from headrace.ranker.vector_index import VectorIndex
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.privacy import open_privacy
from headrace.runtime.release_signing import release_verifier
from headrace.runtime.serving import Background, Face, Parts, run_service, told
from headrace.runtime.settings import CommonSettings, load
from headrace.runtime.shard_addresses import addresses_of
from headrace.runtime.tls import TlsFiles, tls_files
from headrace.v1 import ranker_pb2_grpc

_SERVICE = "headrace.v1.RankerService"


@asynccontextmanager
async def compose(settings: RankerSettings, common: CommonSettings) -> AsyncIterator[Parts]:
    """The ranker's parts while open. It answers before any peer is up, and better when they are."""
    async with AsyncExitStack() as stack:
        background = Background()
        tls = tls_files(common)
        feature_store = await stack.enter_async_context(
            open_feature_store(addresses_of(settings.feature_store_address), tls)
        )
        index = await stack.enter_async_context(open_index(addresses_of(settings.index_address), tls))
        registry = await stack.enter_async_context(open_channel(settings.trainer_address, tls=tls))
        trainer = TrainerPeer(registry)
        pool = stack.enter_context(ThreadPoolExecutor(settings.cpu_threads, thread_name_prefix="ranker"))
        loader = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="release"))

        catalogue = Catalogue(Items())
        lexical = LexicalIndex(settings.lexical_commit_s)
        stack.callback(lexical.close)
        admission = Admission(settings.max_concurrent, settings.max_waiting, ANSWERS)
        turns = Turns(lambda: admission.calls)
        held = HeldPlan()
        releases = Releases(
            trainer.watch_plan,
            held,
            ReleaseLoader(
                trainer,
                catalogue,
                loader,
                GateZero(settings.most_times_slower, signature_check(release_verifier(common))),
                turns,
                vectors_wait_s=settings.vectors_wait_s,
                find_encoder=Pretrained(settings.text_folder, settings.text_digest).find,
            ),
            partial(_vector_feed, index, settings),
            retry_s=settings.retry_s,
            track=settings.track,
            keep_loaded=settings.keep_loaded,
        )
        impressions = await _impressions(settings, common, background, stack)
        stack.push_async_callback(background.stop)
        background.start(ItemFeed(feature_store, catalogue, lexical, settings.retry_s).run(), "items")
        background.start(lexical.run(), "lexical")
        background.start(releases.run(), "releases")

        tokens = Tokens(open_privacy(common).derived("attribution tokens"))
        arms = await _arms(settings, tls, AnswerCheck(held, tokens), impressions, stack)
        shadow = Shadow(lambda: releases.shadow, turns, settings.shadow_per_s)
        background.start(shadow.run(), "shadow")
        report = _reported(Instance.this(settings.track), held, releases, arms, shadow)
        background.start(Reporter(report, ReportPeer(registry).report, settings.report_every_s).run(), "reports")
        answering = Answering(
            catalogue,
            Filters(catalogue),
            releases,
            Sources(feature_store, index, settings),
            pool,
            tokens,
            impressions,
            settings,
            turns,
            shadow,
        )
        force = may_force(settings.force_arm_key, with_tenants=settings.auth_file is not None)
        servicer = RankerServicer(
            Recommender(answering),
            ProductSearch(answering, lexical),
            CandidateRanker(answering),
            admission,
            Assigner(held, settings.track, force),
            Forwarders(with_peers=tls is not None),
            arms,
            Status(catalogue, lexical, releases, impressions, held, arms, settings.track),
            settings.default_deadline_s,
        )
        queues = {"answers": lambda: admission.waiting}
        ready = partial(able_to_answer, releases, catalogue, settings.ready_wait_s)
        yield Parts([Face(_SERVICE, partial(_add, servicer))], background, admission.refusal, queues, ready)


def _reported(
    instance: Instance, held: HeldPlan, releases: Releases, arms: Arms, shadow: Shadow
) -> Callable[[], ServingReport]:
    """What the registry is told, as of each time that it is."""

    def report() -> ServingReport:
        return ServingReport(
            instance,
            plan_sequence=held.newest.sequence if held.newest else 0,
            release=releases.current.release if releases.current else "",
            refused=releases.failed,
            arms=arms.counts.reports(),
            shadow=_beside(releases, shadow),
        )

    return report


def _beside(releases: Releases, shadow: Shadow) -> Report | None:
    """What came of the shadow release; nothing yet, but that it is held, of one that nobody asked for since."""
    held, served, report = releases.shadow, releases.current, shadow.report
    if held is None or served is None or (report is not None and report.release == held.release):
        return report
    return Report(held.release, served.release, Sums())


async def _arms(
    settings: RankerSettings,
    tls: TlsFiles | None,
    check: AnswerCheck,
    impressions: ImpressionLog | None,
    stack: AsyncExitStack,
) -> Arms:
    """The door to both tracks, closed with the stack."""
    canary = None
    if settings.canary_address:
        canary = CanaryTrack(lambda: open_channel(settings.canary_address, retries=False, tls=tls))
        stack.push_async_callback(canary.close)
    arms = Arms(
        canary,
        check,
        Breaker(settings.breaker_failures, settings.breaker_open_s),
        Admission(settings.max_fallbacks, settings.max_waiting),
        impressions,
        budget_s=settings.canary_budget_s,
        default_deadline_s=settings.default_deadline_s,
    )
    stack.callback(arms.close)
    return arms


def _vector_feed(index: VectorIndex, settings: RankerSettings, space: str) -> VectorFeed:
    return VectorFeed(index, space, settings.retry_s)


async def _impressions(
    settings: RankerSettings, common: CommonSettings, background: Background, stack: AsyncExitStack
) -> ImpressionLog | None:
    """The impression log, closed after a last flush; None when it is switched off."""
    if not settings.log_impressions:
        return None
    event_log = open_event_log(common)
    stack.push_async_callback(event_log.close)
    impressions = ImpressionLog(
        event_log, recorded, interval_s=settings.impression_interval_s, queue_size=settings.impression_queue
    )
    stack.push_async_callback(impressions.flush)
    background.start(impressions.run(), "impressions")
    return impressions


def _add(servicer: RankerServicer, server: object) -> None:
    ranker_pb2_grpc.add_RankerServiceServicer_to_server(servicer, server)  # type: ignore[arg-type]


def main() -> int:
    """Runs the service; 2 when it cannot be started as it is told to."""
    return told("ranker", _run)


def _run() -> int:
    settings, common = load(RankerSettings), load(CommonSettings)
    return run_service("ranker", lambda: compose(settings, common), settings, common)


if __name__ == "__main__":
    sys.exit(main())
