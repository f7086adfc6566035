"""`headrace status`: how fresh every stage is, from the door to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.cli.options import DATA_DIR, Address, DataDir, Json, told

if TYPE_CHECKING:
    from headrace.cli.client import Client
    from headrace.v1.feature_store_pb2 import GetFeatureStoreStatusResponse
    from headrace.v1.index_pb2 import GetIndexStatsResponse
    from headrace.v1.ingest_pb2 import GetIngestStatusResponse
    from headrace.v1.ranker_pb2 import GetRankerStatusResponse
    from headrace.v1.trainer_pb2 import GetTrainingStatusResponse, Rollout

T = TypeVar("T")

_TIMEOUT_S = 3.0


@dataclass
class Status:
    """What every service said of itself; None and a reason in `down` when it said nothing."""

    ingest: GetIngestStatusResponse | None = None
    feature_store: GetFeatureStoreStatusResponse | None = None
    trainer: GetTrainingStatusResponse | None = None
    index: GetIndexStatsResponse | None = None
    ranker: GetRankerStatusResponse | None = None
    # where a lineage is tried beside
    candidate: GetTrainingStatusResponse | None = None
    canary: GetRankerStatusResponse | None = None
    # the one that runs, or the newest; None: none yet, or nobody there who knows
    rollout: Rollout | None = None
    down: dict[str, str] = field(default_factory=dict)

    @property
    def log_end(self) -> int:
        """The newest offset that any service has told of."""
        ends = [self.ingest.log_end_offset if self.ingest else 0, self.trainer.log_end_offset if self.trainer else 0]
        return max(ends)

    @property
    def delta_end(self) -> int:
        """The newest sequence of the delta log."""
        return self.trainer.delta_sequence if self.trainer else 0


@told
def status(data_dir: DataDir = DATA_DIR, address: Address = [], as_json: Json = False) -> None:  # noqa: B006
    """Show how far behind the log every stage is, and which release serves.

    Works when services are down, and says which; exit 1 then.

    \b
    Examples:
      headrace status
      headrace status --json
    """
    import typer

    from headrace.cli.conversation import ask
    from headrace.cli.output import print_json

    found = ask(data_dir, address, status_of)
    if as_json:
        print_json(summary(found))
    else:
        _print(found)
    if found.down:
        raise typer.Exit(1)


async def status_of(client: Client) -> Status:
    """Asks all services at once; one that is down costs its timeout, not the answer."""
    from headrace.cli.suite_file import CANDIDATE_LEARNER, CANDIDATE_RANKER
    from headrace.v1.feature_store_pb2 import GetFeatureStoreStatusRequest
    from headrace.v1.index_pb2 import GetIndexStatsRequest
    from headrace.v1.ingest_pb2 import GetIngestStatusRequest
    from headrace.v1.ranker_pb2 import GetRankerStatusRequest
    from headrace.v1.trainer_pb2 import GetTrainingStatusRequest

    found = Status()

    async def ingest() -> None:
        found.ingest = await client.ingest.GetIngestStatus(GetIngestStatusRequest(), timeout=_TIMEOUT_S)

    async def feature_store() -> None:
        request = GetFeatureStoreStatusRequest()
        found.feature_store = await client.feature_store.GetFeatureStoreStatus(request, timeout=_TIMEOUT_S)

    async def trainer() -> None:
        found.trainer = await client.trainer.GetTrainingStatus(GetTrainingStatusRequest(), timeout=_TIMEOUT_S)

    async def index() -> None:
        found.index = await client.index.GetIndexStats(GetIndexStatsRequest(), timeout=_TIMEOUT_S)

    async def ranker() -> None:
        found.ranker = await client.ranker.GetRankerStatus(GetRankerStatusRequest(), timeout=_TIMEOUT_S)

    async def candidate() -> None:
        found.candidate = await client.candidate.GetTrainingStatus(GetTrainingStatusRequest(), timeout=_TIMEOUT_S)

    async def canary() -> None:
        found.canary = await client.canary.GetRankerStatus(GetRankerStatusRequest(), timeout=_TIMEOUT_S)

    asked = {"ingest": ingest, "feature-store": feature_store, "trainer": trainer, "index": index, "ranker": ranker}
    beside = {CANDIDATE_LEARNER: candidate, CANDIDATE_RANKER: canary}
    asked |= {name: one for name, one in beside.items() if name in client.addresses}
    noted = [_noted(name, one(), found) for name, one in asked.items()]
    found.rollout, *_ = await asyncio.gather(_rollout_of(client), *noted)
    return found


async def _rollout_of(client: Client) -> Rollout | None:
    """The trainer is told of as down where it is; one that only learns knows of no rollouts."""
    import grpc

    from headrace.runtime.errors import NotFoundError
    from headrace.v1.trainer_pb2 import GetRolloutRequest

    try:
        return (await client.trainer.GetRollout(GetRolloutRequest(), timeout=_TIMEOUT_S)).found
    except (grpc.aio.AioRpcError, NotFoundError):
        return None


async def _noted(service: str, asked: Awaitable[None], found: Status) -> None:
    import grpc

    from headrace.runtime.errors import NotFoundError

    try:
        await asked
    except grpc.aio.AioRpcError as error:
        found.down[service] = f"{error.code().name}: {error.details()}"
    except NotFoundError as error:
        found.down[service] = str(error)


def stages(found: Status) -> list[dict[str, Any]]:
    """Every stage in the order of the stream: where it is, how far behind, and its lag in ms where it tells one."""
    log, deltas = found.log_end, found.delta_end
    rows = [_stage("log", "ingest", log, log)]
    if store := found.feature_store:
        rows.append(_stage("features", "feature-store", store.offset, log, store.lag_p50_ms, store.lag_p99_ms))
    if trainer := found.trainer:
        rows.append(
            _stage("learning", "trainer", trainer.offset, log, trainer.learn_lag_p50_ms, trainer.learn_lag_p99_ms)
        )
        pushed = (trainer.acknowledged_sequence, deltas, trainer.push_lag_p50_ms, trainer.push_lag_p99_ms)
        rows.append(_stage("deltas pushed", "trainer", *pushed))
    if trainer := found.candidate:
        rows.append(
            _stage(
                "learning", "trainer-candidate", trainer.offset, log, trainer.learn_lag_p50_ms, trainer.learn_lag_p99_ms
            )
        )
    if index := found.index:
        active = next((space for space in index.spaces if space.space == index.active_space), None)
        applied = active.applied_sequence if active else 0
        rows.append(_stage("vectors", "index", applied, deltas, index.apply_p50_ms, index.apply_p99_ms))
    if ranker := found.ranker:
        rows.append(_stage("item features", "ranker", ranker.feature_offset, log))
        rows.append(_stage("answers' vectors", "ranker", ranker.delta_sequence, deltas))
    if canary := found.canary:
        rows.append(_stage("item features", "ranker-canary", canary.feature_offset, log))
    return rows


def summary(found: Status) -> dict[str, Any]:
    """All of it as plain values: what `--json` prints."""
    from headrace.cli.output import as_dict

    said = {
        "ingest": found.ingest,
        "feature-store": found.feature_store,
        "trainer": found.trainer,
        "index": found.index,
        "ranker": found.ranker,
        "trainer-candidate": found.candidate,
        "ranker-canary": found.canary,
    }
    return {
        "log_end_offset": found.log_end,
        "stages": stages(found),
        "release": {
            "newest": found.trainer.newest_release if found.trainer else "",
            "served": found.ranker.release if found.ranker else "",
        },
        "rollout": as_dict(found.rollout) if found.rollout is not None else None,
        "down": found.down,
        "services": {name: as_dict(message) for name, message in said.items() if message is not None},
    }


def _stage(
    stage: str, service: str, at: int, end: int, p50_ms: float | None = None, p99_ms: float | None = None
) -> dict[str, Any]:
    return {
        "stage": stage,
        "service": service,
        "at": at,
        "behind": max(0, end - at),
        "lag_p50_ms": p50_ms,
        "lag_p99_ms": p99_ms,
    }


def _print(found: Status) -> None:
    from headrace.cli.output import print_facts, print_table

    columns = ("stage", "service", "at", "behind", "lag p50 ms", "lag p99 ms")
    rows = [tuple("" if value is None else value for value in stage.values()) for stage in stages(found)]
    print_table("Freshness", columns, rows)
    print_facts(facts_of(found))


def _rules(door: GetIngestStatusResponse) -> dict[str, str]:
    """What each rule of cleaning refused or marked, by channel; rules that met nothing are left out."""
    from headrace.v1.common_pb2 import Channel

    counts: dict[str, dict[str, int]] = {}
    for count in door.rule_counts:
        channel = Channel.Name(count.channel).removeprefix("CHANNEL_").lower()
        counts.setdefault(count.rule, {})[channel] = count.events
    return {
        rule: ", ".join(f"{channel} {number:,}" for channel, number in by_channel.items())
        for rule, by_channel in counts.items()
    }


def _vectors(index: GetIndexStatsResponse) -> dict[str, object]:
    facts: dict[str, object] = {
        f"vectors of {space.space}": f"{space.vectors:,} by {space.segment_kind} ({space.segment_reason})"
        for space in index.spaces
    }
    if index.shards > 1:
        facts["index shard"] = f"{index.shard} of {index.shards}"
    if index.checked_queries:
        checked = f"{index.checked_recall:.3f} of the true best, {index.checked_queries:,} queries checked"
        facts["searches find"] = checked
    return facts | {
        f"DIVERGED {space.space}": ", ".join(f"from {one.peer} by sequence {one.sequence:,}" for one in space.diverged)
        for space in index.spaces
        if space.diverged
    }


def _rollout(rollout: Rollout) -> str:
    from headrace.cli.rollout.screen import phase_name

    people = f" for {rollout.share_bp / 100:g} % of people" if rollout.share_bp else ""
    course = f"{rollout.release} of lineage {rollout.lineage}, {phase_name(rollout.phase)}{people}"
    return f"{rollout.rollout}: {course} ({rollout.reason})"


def facts_of(found: Status) -> dict[str, object]:
    """What is said below the table, of those services that answered."""
    facts: dict[str, object] = {}
    if door := found.ingest:
        refused = ", ".join(f"{reason} {count:,}" for reason, count in sorted(door.rejected_by_reason.items()))
        facts["events"] = f"{door.accepted:,} accepted, {door.duplicates:,} duplicates, rejected: {refused or 'none'}"
        facts |= {f"rule {name}": told for name, told in _rules(door).items()}
        facts["items"] = door.items
    if store := found.feature_store:
        facts["people"] = (
            f"{store.users:,}, {store.hot_users:,} of them in memory; {store.devices_joined:,} devices joined"
        )
        facts["dated facts"] = f"{store.dated_facts:,}"
        facts |= {
            f"back-filling {view.name}": f"{view.back_fill_offset:,} of {view.back_fill_end_offset:,}"
            for view in store.back_filling
        }
    if found.ranker:
        facts["release served"] = found.ranker.release or "none yet"
        if found.ranker.refused_release:
            facts["release refused"] = f"{found.ranker.refused_release}: {found.ranker.refused_reason}"
        facts["answers"] = f"{found.ranker.answers:,}, {found.ranker.degraded_answers:,} degraded"
    if found.rollout is not None:
        facts["rollout"] = _rollout(found.rollout)
    if found.index:
        facts |= _vectors(found.index)
    if trainer := found.trainer:
        facts["newest release"] = trainer.newest_release or "none yet"
        if trainer.prequential:
            last = trainer.prequential[-1]
            facts["quality"] = (
                f"{last.period}: recall@20 {last.recall_at_20:.4f}, popularity {last.popularity_recall_at_20:.4f}, "
                f"personal {last.personal_recall_at_20:.4f}"
            )
    return facts | {f"DOWN {service}": reason for service, reason in sorted(found.down.items())}
