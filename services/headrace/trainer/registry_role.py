"""What makes a process a registry: releases, the serving plan for all who watch it, and rollouts."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.model.text.pretrained import Pretrained
from headrace.runtime.clock import MICROSECONDS, now_us
from headrace.runtime.eventlog import EventLog
from headrace.runtime.privacy import Privacy
from headrace.runtime.serving import Background
from headrace.runtime.settings import CommonSettings
from headrace.trainer.analysis.policy import BudgetPolicy
from headrace.trainer.gate_evidence import GateEvidence
from headrace.trainer.index_channels import close_channels, index_channels
from headrace.trainer.index_vectors import IndexVectors
from headrace.trainer.plan_board import PlanBoard
from headrace.trainer.registry import Registry
from headrace.trainer.registry_face import RegistryParts
from headrace.trainer.releases import Releases
from headrace.trainer.rollouts.artifact_gate import ArtifactGate
from headrace.trainer.rollouts.cluster import cluster_client
from headrace.trainer.rollouts.controller import Controller
from headrace.trainer.rollouts.deployments import ranker_deployments
from headrace.trainer.rollouts.desk import Desk
from headrace.trainer.rollouts.face import RolloutParts
from headrace.trainer.rollouts.gathering import Gathering
from headrace.trainer.rollouts.lease import Lease
from headrace.trainer.rollouts.outcomes import LoggedOutcomes
from headrace.trainer.rollouts.reports import RankerReports
from headrace.trainer.rollouts.settings import RolloutSettings
from headrace.trainer.rollouts.storage import Rollouts
from headrace.trainer.rollouts.verdict_http import verdicts_served
from headrace.trainer.rollouts.webhooks import Webhooks
from headrace.trainer.settings import TrainerSettings

if TYPE_CHECKING:
    from headrace.trainer.rollouts.mirror import Mirror

_TIDY_S = 600.0
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class RegistryRole:
    """What the calls need, and the controller, to be woken when a release is registered."""

    registry: RegistryParts
    rollouts: RolloutParts
    controller: Controller


@asynccontextmanager
async def registry_role(
    settings: TrainerSettings,
    common: CommonSettings,
    rules: RolloutSettings,
    registry: Registry,
    releases: Releases,
    event_log: EventLog,
    privacy: Privacy,
    background: Background,
) -> AsyncIterator[RegistryRole]:
    """The role's parts, at work while open. SettingsError: it is told of Deployments that nobody can ask about."""
    names = rules.deployment_names
    deployments = ranker_deployments(names, rules.namespace) if names else None
    policy, engine = rules.policy(), registry.engine
    rollouts, reports = Rollouts(engine, BudgetPolicy()), RankerReports(engine)
    board = PlanBoard(registry.plan, rules.plan_every_s)
    desk = Desk(registry, rollouts, reports, policy, rules.ramp)
    outcomes = LoggedOutcomes(event_log, privacy, policy.canary, rollouts.open, rules.outcome_records)
    index = index_channels(settings, common)
    encoders = Pretrained(settings.text_folder, settings.text_digest)
    gate = ArtifactGate(releases, encoders.find)
    logged = GateEvidence(
        event_log,
        releases.parts,
        IndexVectors(index),
        window_s=settings.evidence_window_s,
        lists=settings.evidence_lists,
        find_encoder=encoders.find,
        privacy=privacy,
    )
    gathering = Gathering(registry, gate, logged, outcomes, rules.report_valid_s)
    # of this process alone, also after a restart with the same number
    holder = f"{socket.gethostname()[:30]}-{os.getpid()}-{os.urandom(4).hex()}"
    lease = Lease(engine, holder, rules.lease_s)
    controller = Controller(
        registry, rollouts, reports, gathering, lease, policy, rules.look_every_s, deployments, board.refresh
    )
    webhooks = Webhooks(engine, rollouts, rules.webhooks, lambda: controller.decides)
    verdicts = verdicts_served(desk, rules.verdict_host, rules.verdict_port) if rules.verdict_port else nullcontext()
    mirror = _mirror(rules, desk) if rules.mirror else None
    webhooks.begin()
    with verdicts:
        background.start(board.run(), "serving plan")
        background.start(reports.run(), "ranker reports")
        background.start(outcomes.run(), "outcomes")
        background.start(logged.run(), "logged lists")
        background.start(controller.run(), "rollouts")
        background.start(webhooks.run(), "webhooks")
        if mirror is not None:
            background.start(mirror.run(), "mirror")
        background.start(_tidy(rollouts, reports, rules.history_days), "rollout history")
        try:
            yield RegistryRole(
                RegistryParts(registry, releases, board, int(rules.plan_valid_s * 1_000)),
                RolloutParts(desk, reports, deployments, board.refresh),
                controller,
            )
        finally:
            await background.stop()
            await close_channels(index)


def _mirror(rules: RolloutSettings, desk: Desk) -> Mirror:
    # only where it is asked for: it needs the extra kubernetes
    from headrace.trainer.rollouts.mirror import Mirror, told_by

    client = cluster_client("HEADRACE_ROLLOUT_MIRROR", rules.namespace)
    return Mirror(client, client.namespace, lambda: told_by(desk), every_s=rules.mirror_every_s)


async def _tidy(rollouts: Rollouts, reports: RankerReports, history_days: float) -> None:
    while True:
        await asyncio.to_thread(rollouts.forget_before, now_us() - int(history_days * _DAY_S * MICROSECONDS))
        await asyncio.to_thread(reports.forget_old)
        await asyncio.sleep(_TIDY_S)
