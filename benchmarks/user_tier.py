"""What does it cost the fold and a read that people's histories rest in a Redis?

A shop of many people of whom few are active at a time, on one machine with a Redis that syncs what it acknowledges:
`python -m benchmarks.user_tier [--quick] [--seed N] --json PATH`.

- *fold*: events a second folded by one thread, snapshots left out (they are taken by another thread): everybody in the
  process; in a Redis with everybody held; in a Redis with a tenth of them held. No training rows: these would hide it.
- *store*: how long a snapshot's rows take to their tier.
- *read*: GetUserState over gRPC, one call at a time, of people who are in memory and of people who are not.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arguments import base_parser
from benchmarks.redis_server import RedisServer, redis_server
from benchmarks.results import Result
from headrace.feature_store.__main__ import compose
from headrace.feature_store.facts import UserAct
from headrace.feature_store.fold import State
from headrace.feature_store.rules import Rules
from headrace.feature_store.settings import FeatureStoreSettings
from headrace.feature_store.tier_opening import open_user_tier
from headrace.model.events import EVENT_CODES
from headrace.runtime.channels import open_channel
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.sqlite import SqliteEventLog
from headrace.runtime.serving import running
from headrace.runtime.settings import CommonSettings
from headrace.v1 import common_pb2, feature_store_pb2, feature_store_pb2_grpc, log_pb2

PEOPLE, ITEMS = 5_000, 2_000
EVENTS, AT_ONCE, SNAPSHOT = 30_000, 64, 5_000
READS = 2_000
RULES = Rules(row_sample_rate=0.0)


@dataclass(frozen=True)
class Setting:
    """Where people rest, and how many are held."""

    name: str
    is_remote: bool
    held: int


SETTINGS = (
    Setting("in process", False, 0),
    Setting("redis, everybody held", True, PEOPLE),
    Setting("redis, a tenth held", True, PEOPLE // 10),
)


def acts(seed: int, count: int) -> list[UserAct]:
    """What people do, a visit of a few events at a time; some come often, most seldom."""
    chance, time_us, made = random.Random(seed), 1_700_000_000_000_000, []
    kinds = ["detail-page-view"] * 6 + ["add-to-cart"] * 2 + ["purchase-complete"]
    while len(made) < count:
        user = f"u:{chance.randrange(PEOPLE) if chance.random() < 0.5 else int(chance.paretovariate(0.5)) % PEOPLE}"
        for _ in range(chance.randrange(1, 8)):
            time_us += int(chance.expovariate(1 / 2e6))
            kind = chance.choice(kinds)
            items = chance.sample(range(ITEMS), 3 if kind == "purchase-complete" else 1)
            made.append(UserAct(len(made) + 1, kind, EVENT_CODES[kind], user, time_us, 1, items, False))
    return made[:count]


def folded(setting: Setting, facts: Sequence[UserAct], server: RedisServer) -> dict[str, object]:
    """One row of results: a fold of all facts."""
    tier = open_user_tier(server.url() if setting.is_remote else "")
    tier.restore(0, {})
    state, fold_s, stores_ms, fetched = State(RULES, tier), 0.0, [], 0
    for start in range(0, len(facts), AT_ONCE):
        begun = time.perf_counter()
        part = facts[start : start + AT_ONCE]
        fetched += state.hold_users(part)
        for fact in part:
            state.apply(fact)
        fold_s += time.perf_counter() - begun
        if start // SNAPSHOT != (start + AT_ONCE) // SNAPSHOT:
            copy = state.histories.copy()
            state.histories.storing()
            begun = time.perf_counter()
            copy.store(state.offset)
            stores_ms.append((time.perf_counter() - begun) * 1e3)
            tier.keep_from(state.offset)
            state.histories.stored(setting.held)
    tier.close()
    return {
        "what": "fold",
        "users": setting.name,
        "events_per_s": round(len(facts) / fold_s),
        "fetched": fetched,
        "people": state.histories.count(),
        "store_ms": round(sum(stores_ms) / len(stores_ms), 1),
    }


async def read(server: RedisServer, facts: Sequence[UserAct], reads: int) -> list[dict[str, object]]:
    """Two rows of results: reads of those in memory, and of those who are not."""
    seen = list(dict.fromkeys(fact.user_key for fact in reversed(facts)))
    held = len(seen) // 10
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteEventLog(Path(folder) / "events.db")
        for start in range(0, len(facts), 1_000):
            await log.append([_record(fact) for fact in facts[start : start + 1_000]])
        settings = FeatureStoreSettings(
            port=0, redis_url=server.url(), hot_users=held, snapshot_every_s=0.5, row_sample_rate=0.0
        )
        async with (
            compose(settings, CommonSettings(data_dir=Path(folder))) as parts,
            running(parts, settings) as serving,
        ):
            channel = open_channel(serving.address)
            stub = feature_store_pb2_grpc.FeatureStoreServiceStub(channel)
            while (status := await _status(stub)).snapshot_offset < len(facts) or status.hot_users > held:
                pass
            rows = [
                await _timed(stub, "read, in memory", seen[: held // 2], reads),
                await _timed(stub, "read, in redis", seen[held * 2 :], reads),
            ]
            await channel.close()
        await log.close()
    return rows


async def _status(
    stub: feature_store_pb2_grpc.FeatureStoreServiceAsyncStub,
) -> feature_store_pb2.GetFeatureStoreStatusResponse:
    return await stub.GetFeatureStoreStatus(feature_store_pb2.GetFeatureStoreStatusRequest())


async def _timed(
    stub: feature_store_pb2_grpc.FeatureStoreServiceAsyncStub, what: str, people: Sequence[str], reads: int
) -> dict[str, object]:
    chance, took_ms = random.Random(1), []
    for _ in range(reads):
        request = feature_store_pb2.GetUserStateRequest(user_key=chance.choice(people))
        begun = time.perf_counter()
        await stub.GetUserState(request)
        took_ms.append((time.perf_counter() - begun) * 1e3)
    took_ms.sort()
    p50, p99 = (round(took_ms[int(len(took_ms) * share)], 3) for share in (0.5, 0.99))
    return {"what": what, "p50_ms": p50, "p99_ms": p99, "reads": reads}


def _record(fact: UserAct) -> Record:
    event = common_pb2.UserEvent(event_id=f"e{fact.offset}", event_type=fact.event_type, channel=1)
    logged = log_pb2.LoggedUserEvent(
        event=event, user_key=fact.user_key, item_ordinals=fact.ordinals, event_time_us=fact.time_us
    )
    return Record("user-event", fact.user_key, event.event_id, fact.time_us, logged.SerializeToString())


def main() -> None:
    parser = base_parser(__doc__, "one round of a third of the events")
    args = parser.parse_args()
    rounds, events, reads = (1, EVENTS // 3, READS // 10) if args.quick else (3, EVENTS, READS)
    rows: list[dict[str, object]] = []
    with redis_server() as server:
        facts = acts(args.seed, events)
        # by turns: the machine's mood falls on all alike
        rows += [folded(setting, facts, server) for _ in range(rounds) for setting in SETTINGS]
        rows += asyncio.run(read(server, facts, reads))
    for row in rows:
        print(row)
    settings = {"people": PEOPLE, "items": ITEMS, "events": events, "snapshot_every": SNAPSHOT, "rounds": rounds}
    Result("user_tier", settings, [args.seed], rows, []).write(args.json)


if __name__ == "__main__":
    main()
