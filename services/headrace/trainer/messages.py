"""Releases and plans as messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.trainer.registry import Release, ServingPlan
from headrace.v1 import trainer_pb2


def release_message(release: Release) -> trainer_pb2.Release:
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
        create_time=timestamp(release.create_time_us),
        checksum=release.checksum,
        dimension=release.dimension,
        signature=release.signature,
    )


def plan_message(plan: ServingPlan, valid_for_ms: int) -> trainer_pb2.WatchServingPlanResponse:
    stable, canary, shadow = (
        release_message(release) if release else None for release in (plan.stable, plan.canary, plan.shadow)
    )
    given = plan.assignment
    return trainer_pb2.WatchServingPlanResponse(
        sequence=plan.sequence,
        stable=stable,
        canary=canary,
        assignment=trainer_pb2.Assignment(rollout=given.rollout, salt=given.salt, share_bp=given.share_bp)
        if given
        else None,
        shadow=shadow,
        valid_for_ms=valid_for_ms,
    )


def timestamp(time_us: int) -> Timestamp:
    """The message of Unix microseconds."""
    stamp = Timestamp()
    stamp.FromMicroseconds(time_us)
    return stamp
