"""The registry as a listener to what a ranker did: translate out, one call."""

from __future__ import annotations

from dataclasses import asdict

import grpc

from headrace.ranker.arm_counts import ArmCount
from headrace.ranker.reporting import ServingReport
from headrace.ranker.shadow import Report
from headrace.runtime.errors import UnavailableError
from headrace.v1 import trainer_pb2, trainer_pb2_grpc

_TIMEOUT_S = 1.0


class ReportPeer:
    """Where reports go."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: trainer_pb2_grpc.TrainerServiceAsyncStub = trainer_pb2_grpc.TrainerServiceStub(channel)

    async def report(self, report: ServingReport) -> None:
        """UnavailableError: nobody took it in time."""
        try:
            await self._stub.ReportServing(report_message(report), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise UnavailableError(error.details() or error.code().name) from error


def report_message(report: ServingReport) -> trainer_pb2.ReportServingRequest:
    """The message of a report."""
    instance, refused = report.instance, report.refused
    message = trainer_pb2.ReportServingRequest(
        ranker=instance.name,
        track=instance.track,
        plan_sequence=report.plan_sequence,
        release=report.release,
        refused_release=refused.release,
        refused_reason=refused.reason,
        arms=[_arm(each) for each in report.arms],
    )
    message.start_time.FromMicroseconds(instance.start_us)
    if report.shadow is not None:
        message.shadow.CopyFrom(_shadow(report.shadow))
    return message


def _arm(count: ArmCount) -> trainer_pb2.ArmReport:
    return trainer_pb2.ArmReport(
        rollout=count.rollout,
        arm=count.arm,
        answers=count.answers,
        fallbacks=count.fallbacks,
        errors=count.errors,
        degraded=count.degraded,
        latency=count.latency,
    )


def _shadow(report: Report) -> trainer_pb2.ShadowReport:
    return trainer_pb2.ShadowReport(release=report.release, baseline=report.baseline, **asdict(report.sums))
