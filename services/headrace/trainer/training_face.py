"""The call about learning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from headrace.runtime.door import Context
from headrace.runtime.eventlog import EventLog
from headrace.trainer.lineage import Lineage
from headrace.trainer.loop import LearningLoop
from headrace.trainer.prequential import Quality
from headrace.trainer.publisher import Publisher
from headrace.trainer.registry import Release
from headrace.v1 import trainer_pb2


@dataclass(frozen=True, slots=True)
class LearnerParts:
    """What the call needs. `newest`: the newest release that was learned here."""

    event_log: EventLog
    lineage: Lineage
    learning: LearningLoop
    publisher: Publisher
    newest: Callable[[], Release | None]


class TrainingCalls:
    """The part of TrainerService that is about learning."""

    def __init__(self, learner: Callable[[], LearnerParts]) -> None:
        self._learner = learner

    async def GetTrainingStatus(
        self, request: trainer_pb2.GetTrainingStatusRequest, context: Context
    ) -> trainer_pb2.GetTrainingStatusResponse:
        parts = self._learner()
        end_offset, _ = await parts.event_log.end()
        acknowledged = parts.publisher.acknowledged
        look = await asyncio.to_thread(parts.lineage.look, request.with_digest)
        standing, newest = look.standing, await asyncio.to_thread(parts.newest)
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
            learn_lag_p50_ms=parts.learning.learn_lag_ms.at(0.5),
            learn_lag_p99_ms=parts.learning.learn_lag_ms.at(0.99),
            push_lag_p50_ms=parts.publisher.lag_ms.at(0.5),
            push_lag_p99_ms=parts.publisher.lag_ms.at(0.99),
            vectors_digest=look.digest,
            vectors=look.vectors,
            rows_offset=standing.rows_offset,
            rows=standing.rows,
            ranker_loss=standing.ranker_loss,
        )


def _quality(quality: Quality) -> trainer_pb2.PrequentialQuality:
    return trainer_pb2.PrequentialQuality(
        period=quality.period,
        targets=quality.targets,
        recall_at_20=quality.recall,
        mrr_at_20=quality.reciprocal_rank,
        popularity_recall_at_20=quality.popularity_recall,
        personal_recall_at_20=quality.personal_recall,
    )
