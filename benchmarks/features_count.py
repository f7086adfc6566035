"""Ways to count a stream of events into sliding windows, in events a second."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.features_scale import Scale
from benchmarks.redis_server import RedisServer, redis_server
from headrace.feature_store.windows import WindowedCounts
from headrace.model.items import WINDOWS_US

BATCH = 8_192


@dataclass(frozen=True)
class Stream:
    """Events to be counted, an entity each."""

    entities: NDArray[np.int64]
    kinds: NDArray[np.int64]
    times_us: NDArray[np.int64]
    nows_us: NDArray[np.int64]

    @classmethod
    def of(cls, seed: int, count: int) -> Stream:
        chance = np.random.default_rng(seed)
        late = np.where(chance.random(count) < 0.05, chance.integers(0, 120_000_000, count), 0)
        clock_us = 1_700_000_000_000_000 + np.cumsum(chance.integers(0, 4_000, count))
        times_us = clock_us - late
        entities = chance.zipf(1.3, count) % 50_000
        return cls(entities, chance.integers(0, 3, count), times_us, np.maximum.accumulate(times_us))


def count_one_by_one(stream: Stream, count: int) -> float:
    """Events a second."""
    counts = WindowedCounts()
    begun = time.perf_counter()
    for place in range(count):
        now_us = int(stream.nows_us[place])
        counts.advance(now_us)
        counts.add(stream.entities[place : place + 1], int(stream.kinds[place]), int(stream.times_us[place]), now_us)
    return count / (time.perf_counter() - begun)


def count_in_batches(stream: Stream) -> float:
    """Events a second."""
    counts = WindowedCounts()
    total = len(stream.entities)
    begun = time.perf_counter()
    for start in range(0, total, BATCH):
        end = min(total, start + BATCH)
        counts.add_many(
            stream.entities[start:end],
            stream.kinds[start:end],
            stream.times_us[start:end],
            int(stream.nows_us[end - 1]),
        )
    return total / (time.perf_counter() - begun)


def count_in_redis(stream: Stream, count: int, server: RedisServer) -> float:
    """Events a second."""
    client = redis.Redis.from_url(server.url())
    names = tuple(WINDOWS_US)
    begun = time.perf_counter()
    for start in range(0, count, 1_000):
        pipeline = client.pipeline(transaction=False)
        for place in range(start, min(count, start + 1_000)):
            for name in names:
                pipeline.hincrby(f"{name}:{stream.entities[place]}", str(stream.kinds[place]), 1)
        pipeline.execute()
    return count / (time.perf_counter() - begun)


def time_counts(scale: Scale, seed: int) -> dict[str, list[float]]:
    """Events a second by way, a value a round."""
    found: dict[str, list[float]] = {"one by one": [], "in batches": [], "redis HINCRBY": []}
    stream = Stream.of(seed, scale.counted)
    with redis_server(is_synced=False) as server:
        for _ in range(scale.rounds):
            found["one by one"].append(count_one_by_one(stream, scale.counted_one_by_one))
            found["in batches"].append(count_in_batches(stream))
            found["redis HINCRBY"].append(count_in_redis(stream, scale.counted_one_by_one // 3, server))
    return found
