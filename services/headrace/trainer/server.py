"""The gRPC face of the trainer, of those parts that its role has."""

from __future__ import annotations

from typing import TypeVar

from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.serving import Face
from headrace.trainer.registry_face import RegistryCalls, RegistryParts
from headrace.trainer.rollouts.face import RolloutCalls, RolloutParts
from headrace.trainer.training_face import LearnerParts, TrainingCalls
from headrace.v1 import trainer_pb2, trainer_pb2_grpc

T = TypeVar("T")


class TrainerServicer(TrainingCalls, RegistryCalls, RolloutCalls, trainer_pb2_grpc.TrainerServiceServicer):
    """Answers what its parts can; other calls are refused by naming the role that answers them."""

    def __init__(
        self, learner: LearnerParts | None, registry: RegistryParts | None, rollouts: RolloutParts | None
    ) -> None:
        TrainingCalls.__init__(self, lambda: _present(learner, "learn"))
        RegistryCalls.__init__(self, lambda: _present(registry, "registry"))
        RolloutCalls.__init__(self, lambda: _present(rollouts, "registry"))

    def face(self) -> Face:
        name = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name
        return Face(name, lambda server: trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, server))


def _present(parts: T | None, role: str) -> T:
    if parts is None:
        raise FailedPreconditionError(f"this process does not do that: ask one with HEADRACE_TRAINER_ROLE={role}")
    return parts
