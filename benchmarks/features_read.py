"""Ways to read one person's state and the features of many items, over the same values, timed in turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pandas as pd
import redis
from numpy.typing import NDArray

from benchmarks.feast_stores import NOW, FeastStore
from benchmarks.features_data import fill_log, more_events
from benchmarks.features_scale import FEATURES, Scale
from benchmarks.gather import running_gather
from benchmarks.redis_server import redis_server
from headrace.cli.suite import Suite
from headrace.feature_store.views import USER_FEATURES
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings
from headrace.v1.feature_store_pb2 import GetOnlineFeaturesRequest, GetOnlineFeaturesResponse
from headrace.v1.feature_store_pb2_grpc import FeatureStoreServiceStub

Floats = NDArray[np.float64]

ITEMS, USER_EVENTS = 200, 200
_EVENTS_PER_S = 500
_PATIENCE_S = 120.0

# what is asked for: a person and items
Ask = tuple[int, NDArray[np.uint32]]
# numbers of the person and of the items, a row each
Values = tuple[NDArray[np.float32], NDArray[np.float32]]
Read = Callable[[Ask], Values]
Arms = Mapping[str, Read]


class OverGrpc:
    """The feature store, or the floor: anything that answers GetOnlineFeatures."""

    def __init__(self, address: str) -> None:
        self._stub = FeatureStoreServiceStub(grpc.insecure_channel(address))

    def response(self, ask: Ask, min_offset: int = 0) -> GetOnlineFeaturesResponse:
        person, items = ask
        request = GetOnlineFeaturesRequest(
            user_key=f"u:{person}",
            item_ordinals=items.tobytes(),
            features=(*FEATURES, "user_windows"),
            max_events=USER_EVENTS,
            min_offset=min_offset,
        )
        return self._stub.GetOnlineFeatures(request, timeout=_PATIENCE_S)

    def read(self, ask: Ask) -> Values:
        answer = self.response(ask)
        matrix = answer.item_features
        items = np.frombuffer(matrix.values, "<f4").reshape(matrix.rows, matrix.columns)
        np.frombuffer(answer.history.item_ordinals, "<u4")
        return np.frombuffer(answer.user_features, "<f4"), items


class PackedRedis:
    """Rows of float32 as strings."""

    def __init__(self, url: str, tables: Mapping[str, NDArray[np.float32]]) -> None:
        self._client = redis.Redis.from_url(url)
        for name, table in tables.items():
            self._client.mset({f"{name}:{key}": row.tobytes() for key, row in enumerate(table)})

    def read(self, ask: Ask) -> Values:
        person, items = ask
        pipeline = self._client.pipeline(transaction=False)
        pipeline.mget([f"item:{item}" for item in items.tolist()])
        pipeline.get(f"user:{person}")
        rows, user = pipeline.execute()
        return np.frombuffer(user, "<f4"), np.frombuffer(b"".join(rows), "<f4").reshape(len(items), -1)


class OverFeast:
    """Feast's online store, asked once for the items and once for the person."""

    def __init__(self, store: FeastStore) -> None:
        self._store = store

    def read(self, ask: Ask) -> Values:
        person, items = ask
        of_items = self._store.online("item", items.tolist())
        of_user = self._store.online("user", [person])
        return _numbers(of_user, len(USER_FEATURES))[0], _numbers(of_items, len(FEATURES))


def _numbers(columns: Mapping[str, Sequence[float]], width: int) -> NDArray[np.float32]:
    return np.array([columns[f"f{place}"] for place in range(width)], np.float32).T


def _frame(entity: str, table: NDArray[np.float32]) -> pd.DataFrame:
    columns = {f"f{place}": table[:, place] for place in range(table.shape[1])}
    return pd.DataFrame({f"{entity}_id": np.arange(len(table)), "event_timestamp": NOW, **columns})


def _tables(ours: OverGrpc, scale: Scale, end: int) -> dict[str, NDArray[np.float32]]:
    """All items' and persons' values, as the feature store tells them at the end of its log."""
    ours.response((0, np.arange(1, dtype=np.uint32)), end)
    every = np.arange(scale.products, dtype=np.uint32)
    items = [ours.read((0, every[start : start + 1_000]))[1] for start in range(0, len(every), 1_000)]
    users = [ours.read((person, every[:1]))[0] for person in range(scale.users)]
    return {"item": np.concatenate(items), "user": np.stack(users)}


@asynccontextmanager
async def readers(folder: Path, scale: Scale, seed: int) -> AsyncIterator[Arms]:
    """All ways to read, over the same values."""
    async with AsyncExitStack() as stack:
        end = await fill_log(folder, scale.products, scale.users, scale.events, seed)
        environment = {"HEADRACE_FEATURE_STORE_ROW_SAMPLE_RATE": "0"}
        suite = Suite(folder, services=("feature-store",), environment=environment)
        await stack.enter_async_context(suite)
        ours = OverGrpc(suite.addresses["feature-store"])
        tables = await asyncio.to_thread(_tables, ours, scale, end)
        table, answer = folder / "table.npy", folder / "answer.bin"
        np.save(table, tables["item"])
        answer.write_bytes(ours.response((1, np.arange(1, dtype=np.uint32))).SerializeToString())
        floor = OverGrpc(await stack.enter_async_context(running_gather(table, answer)))
        server = stack.enter_context(redis_server(is_synced=False))
        frames = {name: _frame(name, values) for name, values in tables.items()}
        feast = {
            "feast-redis": {"type": "redis", "connection_string": f"127.0.0.1:{server.port}"},
            "feast-sqlite": {"type": "sqlite", "path": str(folder / "online.db")},
        }
        found: dict[str, Read] = {
            "headrace": ours.read,
            "floor": floor.read,
            "redis": PackedRedis(server.url(), tables).read,
        }
        for name, online in feast.items():
            store = FeastStore(folder / name, online, frames)
            store.fill_online(frames)
            found[name] = OverFeast(store).read
        yield found


def time_reads(arms: Arms, asks: Sequence[Ask], rounds: int, feast: int) -> dict[str, Floats]:
    """Milliseconds of every read by arm, the arms in turns. All must answer the same numbers."""
    _check_equal(arms, asks[0])
    times_ms: dict[str, list[float]] = {name: [] for name in arms}
    slices = 20 * rounds
    for number in range(slices):
        for name, read in arms.items():
            share = len(asks) if not name.startswith("feast") else feast
            for place in range(number * share // slices, (number + 1) * share // slices):
                begun = time.perf_counter()
                read(asks[place])
                times_ms[name].append(1e3 * (time.perf_counter() - begun))
    return {name: np.array(values) for name, values in times_ms.items()}


def _check_equal(arms: Arms, ask: Ask) -> None:
    expected = arms["headrace"](ask)
    for name, read in arms.items():
        for _ in range(20 if not name.startswith("feast") else 3):
            found = read(ask)
        # the floor knows one person only
        start = 1 if name == "floor" else 0
        for mine, theirs in list(zip(expected, found, strict=True))[start:]:
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


async def time_reads_while_folding(
    folder: Path, ours: Callable[[Ask], Values], asks: Sequence[Ask], scale: Scale
) -> Floats:
    """Milliseconds of reads while the log grows."""
    log = open_event_log(CommonSettings(data_dir=folder))
    is_over = asyncio.Event()

    async def write() -> None:
        records = more_events(scale.products, scale.users, scale.events)
        while not is_over.is_set():
            await log.append([next(records) for _ in range(_EVENTS_PER_S // 50)])
            await asyncio.sleep(1 / 50)

    def read() -> list[float]:
        times_ms = []
        for ask in asks:
            begun = time.perf_counter()
            ours(ask)
            times_ms.append(1e3 * (time.perf_counter() - begun))
        return times_ms

    writing = asyncio.create_task(write())
    times_ms = await asyncio.to_thread(read)
    is_over.set()
    await writing
    await log.close()
    return np.array(times_ms)
