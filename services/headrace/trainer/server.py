"""The gRPC face of the trainer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NoReturn

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.runtime.door import Context
from headrace.runtime.errors import Faults
from headrace.runtime.eventlog import EventLog
from headrace.runtime.serving import Face
from headrace.trainer.lineage import Lineage
from headrace.trainer.loop import LearningLoop
from headrace.trainer.plan_board import PlanBoard
from headrace.trainer.prequential import Quality
from headrace.trainer.publisher import Publisher
from headrace.trainer.registry import Registry, Release, ServingPlan, number_of
from headrace.trainer.releases import Releases
from headrace.v1 import trainer_pb2, trainer_pb2_grpc

_CHUNK_BYTES = 1 << 20
_PAGE, _MAX_PAGE = 50, 1_000


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """Translates calls; rollouts are answered UNIMPLEMENTED."""

    def __init__(
        self,
        event_log: EventLog,
        lineage: Lineage,
        learning: LearningLoop,
        publisher: Publisher,
        registry: Registry,
        releases: Releases,
        board: PlanBoard,
    ) -> None:
        self._log = event_log
        self._lineage = lineage
        self._learning = learning
        self._publisher = publisher
        self._registry = registry
        self._releases = releases
        self._board = board

    def face(self) -> Face:
        name = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name
        return Face(name, lambda server: trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server))

    async def GetTrainingStatus(
        self, request: trainer_pb2.GetTrainingStatusRequest, context: Context
    ) -> trainer_pb2.GetTrainingStatusResponse:
        end_offset, _ = await self._log.end()
        acknowledged = self._publisher.acknowledged
        look = await asyncio.to_thread(self._lineage.look, request.with_digest)
        standing, newest = look.standing, self._board.plan.stable
        return trainer_pb2.GetTrainingStatusResponse(
            offset=standing.offset,
            log_end_offset=end_offset,
            slices=standing.slices,
            examples=standing.examples,
            train_seconds=standing.train_seconds,
            prequential=[_quality(quality) for quality in standing.quality],
            space=look.space,
            delta_sequence=look.last_sequence,
            acknowledged_sequence=acknowledged,
            newest_release=newest.name if newest else "",
            checkpoint_offset=standing.checkpoint_offset,
            learn_lag_p50_ms=self._learning.learn_lag_ms.at(0.5),
            learn_lag_p99_ms=self._learning.learn_lag_ms.at(0.99),
            push_lag_p50_ms=self._publisher.lag_ms.at(0.5),
            push_lag_p99_ms=self._publisher.lag_ms.at(0.99),
            vectors_digest=look.digest,
            vectors=look.vectors,
            rows_offset=standing.rows_offset,
            rows=standing.rows,
            ranker_loss=standing.ranker_loss,
        )

    async def ListReleases(
        self, request: trainer_pb2.ListReleasesRequest, context: Context
    ) -> trainer_pb2.ListReleasesResponse:
        size, before = _page(request)
        releases = await asyncio.to_thread(self._registry.releases, size + 1, before)
        return trainer_pb2.ListReleasesResponse(
            releases=[_release(release) for release in releases[:size]],
            next_page_token=releases[size - 1].name if len(releases) > size else "",
        )

    async def GetRelease(
        self, request: trainer_pb2.GetReleaseRequest, context: Context
    ) -> trainer_pb2.GetReleaseResponse:
        release = await asyncio.to_thread(self._registry.release, request.release)
        return trainer_pb2.GetReleaseResponse(release=_release(release))

    async def WatchServingPlan(
        self, request: trainer_pb2.WatchServingPlanRequest, context: Context
    ) -> AsyncIterator[trainer_pb2.WatchServingPlanResponse]:
        async for plan in self._board.watch():
            yield _plan(plan)

    async def FetchArtifact(
        self, request: trainer_pb2.FetchArtifactRequest, context: Context
    ) -> AsyncIterator[trainer_pb2.FetchArtifactResponse]:
        release = await asyncio.to_thread(self._registry.release, request.release)
        sha256 = release.part(request.part).sha256
        data = await asyncio.to_thread(self._releases.read, release, request.part)
        for start in range(0, max(len(data), 1), _CHUNK_BYTES):
            is_last = start + _CHUNK_BYTES >= len(data)
            chunk = data[start : start + _CHUNK_BYTES]
            yield trainer_pb2.FetchArtifactResponse(data=chunk, sha256=sha256 if is_last else "")

    async def CreateRollout(
        self, request: trainer_pb2.CreateRolloutRequest, context: Context
    ) -> trainer_pb2.CreateRolloutResponse:
        return await _refuse_rollout(context)

    async def GetRollout(
        self, request: trainer_pb2.GetRolloutRequest, context: Context
    ) -> trainer_pb2.GetRolloutResponse:
        return await _refuse_rollout(context)

    async def PromoteRollout(
        self, request: trainer_pb2.PromoteRolloutRequest, context: Context
    ) -> trainer_pb2.PromoteRolloutResponse:
        return await _refuse_rollout(context)

    async def AbortRollout(
        self, request: trainer_pb2.AbortRolloutRequest, context: Context
    ) -> trainer_pb2.AbortRolloutResponse:
        return await _refuse_rollout(context)

    async def PauseRollout(
        self, request: trainer_pb2.PauseRolloutRequest, context: Context
    ) -> trainer_pb2.PauseRolloutResponse:
        return await _refuse_rollout(context)


async def _refuse_rollout(context: Context) -> NoReturn:
    reason = "rollouts by canary are not available: every release serves the stable track"
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, reason)
    raise AssertionError("abort returned")


def _page(request: trainer_pb2.ListReleasesRequest) -> tuple[int, int]:
    faults = Faults()
    size = request.page_size or _PAGE
    faults.check(1 <= size <= _MAX_PAGE, "page_size", f"must be 1..{_MAX_PAGE} or 0, got {request.page_size}")
    token = request.page_token
    is_token = not token or (token.startswith("r-") and token[2:].isascii() and token[2:].isdecimal())
    faults.check(is_token, "page_token", f"must come from an answer, got {token!r}")
    faults.raise_if_any()
    return size, number_of(token) if token else 0


def _quality(quality: Quality) -> trainer_pb2.PrequentialQuality:
    return trainer_pb2.PrequentialQuality(
        period=quality.period,
        targets=quality.targets,
        recall_at_20=quality.recall,
        mrr_at_20=quality.reciprocal_rank,
        popularity_recall_at_20=quality.popularity_recall,
        personal_recall_at_20=quality.personal_recall,
    )


def _release(release: Release) -> trainer_pb2.Release:
    created = Timestamp()
    created.FromMicroseconds(release.create_time_us)
    parts = [trainer_pb2.ReleasePart(name=p.name, sha256=p.sha256, size_bytes=p.size_bytes) for p in release.parts]
    return trainer_pb2.Release(
        release=release.name,
        parent=release.parent,
        lineage=release.lineage,
        space=release.space,
        delta_sequence=release.delta_sequence,
        log_offset=release.log_offset,
        feature_schema=release.feature_schema,
        parts=parts,
        metrics=release.metrics,
        create_time=created,
        checksum=release.checksum,
        dimension=release.dimension,
    )


def _plan(plan: ServingPlan) -> trainer_pb2.WatchServingPlanResponse:
    stable = _release(plan.stable) if plan.stable else None
    return trainer_pb2.WatchServingPlanResponse(sequence=plan.sequence, stable=stable)
