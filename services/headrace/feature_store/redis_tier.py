"""Everybody's rows in a Redis, for people who outgrow one process's memory. Keys: `redis_rows`.

Each of the log's 64 partitions keeps its rows, its offset and whose it is under one hash tag, so that they move
together: one script a partition, atomic also in a cluster. Before a row is replaced the script puts the old one aside
in the *level* of the new offset; going back to a snapshot is putting the levels above it back. Every answer is checked
against the partition's offset: a Redis that was emptied, or lost its newest writes, is found out and never believed.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import cast

import numpy as np
import redis

from headrace.feature_store.columns import Columns
from headrace.feature_store.histories import newest_us
from headrace.feature_store.redis_levels import rolled_back
from headrace.feature_store.redis_rows import EVERY_KEY, EVERY_ROW, PARTITIONS, STORE, Standing, Tag, user_key_of
from headrace.runtime.errors import CorruptDataError, UnavailableError
from headrace.runtime.eventlog import partition_of

log = logging.getLogger(__name__)

Client = redis.Redis | redis.RedisCluster

_BATCH = 1_000
# partitions that are moved on by one question, or back at a time
_AT_ONCE = 8
# of a durable store that removes nothing by itself
WANTED = {"appendonly": ("yes",), "maxmemory-policy": ("noeviction",)}
_OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'"
_COLUMN = "users.redis"


class RedisTier:
    """A `UserTier` in one Redis database, which one feature store has to itself."""

    is_remote = True

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        # which fold's rows these are, and which process may change them
        self._fold = ""
        self._process = uuid.uuid4().hex
        self._offset = 0
        self._users = 0

    def fetch(self, user_keys: Sequence[str]) -> dict[str, bytes]:
        if not user_keys:
            return {}
        tags = [Tag(partition_of(user_key)) for user_key in user_keys]
        partitions = list(dict.fromkeys(tags))
        least = self._offset
        row_keys = [tag.row(user_key) for tag, user_key in zip(tags, user_keys, strict=True)]
        with self._reached():
            values = self._values([tag.standing for tag in partitions] + row_keys)
        for tag, value in zip(partitions, values, strict=False):
            if (at := self._standing(tag, value).offset) < least:
                raise CorruptDataError(f"{self._name}: {tag.standing} is back at {at}, {least} was stored")
        rows = zip(user_keys, values[len(partitions) :], strict=True)
        return {user_key: row for user_key, row in rows if row is not None}

    def _values(self, keys: Sequence[str]) -> list[bytes | None]:
        if isinstance(self._client, redis.RedisCluster):
            return list(self._client.mget_nonatomic(keys))
        # the client's types allow for its asynchronous twin
        return cast("list[bytes | None]", self._client.mget(keys))

    def _standing(self, tag: Tag, value: bytes | None) -> Standing:
        """CorruptDataError unless the partition is still this process's."""
        standing = Standing.parse(value)
        if standing is None:
            raise CorruptDataError(f"{self._name}: {tag.standing} is gone: the Redis was emptied")
        if (standing.fold, standing.process) != (self._fold, self._process):
            raise CorruptDataError(f"{self._name}: another feature store took {tag.standing} over")
        return standing

    def store(self, offset: int, rows: Mapping[str, bytes], cutoff_us: int) -> None:
        changes: dict[int, dict[str, bytes]] = {partition: {} for partition in range(PARTITIONS)}
        with self._reached():
            if cutoff_us > 0:
                for user_key in self._away(cutoff_us):
                    changes[partition_of(user_key)][user_key] = b""
            for user_key, row in rows.items():
                changes[partition_of(user_key)][user_key] = row
            self._users = sum(self._moved(offset, changes))
        self._offset = offset

    def _moved(self, offset: int, changes: Mapping[int, Mapping[str, bytes]]) -> Iterator[int]:
        """Moves partitions on, a few at a time: so no answer takes so long that it seems lost."""
        partitions = iter(changes.items())
        while some := list(islice(partitions, _AT_ONCE)):
            commands = self._client.pipeline(transaction=False)
            for partition, rows in some:
                commands.execute_command(*self._move(Tag(partition), offset, rows))
            answers: list[object] = commands.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
                if not isinstance(answer, int):
                    raise CorruptDataError(f"{self._name}: {answer!r}")
                yield answer

    def _move(self, tag: Tag, offset: int, rows: Mapping[str, bytes]) -> list[str | bytes | int]:
        keys = [tag.standing, tag.levels, tag.level(offset), tag.newest, *map(tag.row, rows)]
        command: list[str | bytes | int] = ["EVAL", STORE, len(keys), *keys, self._fold, self._process, offset]
        for user_key, row in rows.items():
            command += [user_key, row, newest_us(row)]
        return command

    def _away(self, cutoff_us: int) -> list[str]:
        commands = self._client.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            commands.zrangebyscore(Tag(partition).newest, "-inf", cutoff_us)
        return [name.decode() for names in commands.execute() for name in names]

    def columns(self) -> Columns:
        return {_COLUMN: np.frombuffer(self._fold.encode(), np.uint8)}

    def restore(self, offset: int, columns: Columns) -> None:
        with self._reached():
            self._warn_of_settings()
            if offset:
                self._go_back(offset, columns)
            else:
                self._clear()

    def _go_back(self, offset: int, columns: Columns) -> None:
        if _COLUMN not in columns:
            raise CorruptDataError(f"the snapshot at {offset} holds its users itself, and {self._name} is named now")
        fold = columns[_COLUMN].tobytes().decode()
        partitions = [Tag(partition) for partition in range(PARTITIONS)]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            # all partitions are looked at before one is changed
            ways = list(threads.map(lambda tag: rolled_back(self._client, tag, fold, offset, self._name), partitions))
            for _ in threads.map(lambda way: way.take(self._client, self._process), ways):
                pass
        if levels := max(len(way.levels) for way in ways):
            log.info("users_went_back", extra={"offset": offset, "levels": levels})
        self._fold, self._offset, self._users = fold, offset, sum(way.standing.users for way in ways)

    def _clear(self) -> None:
        """Nobody is here, and no older snapshot can be restored any more."""
        self._fold, self._offset, self._users = uuid.uuid4().hex, 0, 0
        standing = Standing(self._fold, self._process, 0, 0).text()
        # before the rows go: half of them are no one's
        commands = self._client.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            commands.set(Tag(partition).standing, standing)
        commands.execute()
        kept = {Tag(partition).standing.encode() for partition in range(PARTITIONS)}
        for keys in _batches(self._client.scan_iter(match=EVERY_KEY, count=_BATCH)):
            if gone := [key for key in keys if key not in kept]:
                self._delete(gone)

    def _delete(self, keys: Sequence[bytes]) -> None:
        commands = self._client.pipeline(transaction=False)
        for key in keys:
            commands.unlink(key)
        commands.execute()

    def keep_from(self, offset: int) -> None:
        tags = [Tag(partition) for partition in range(PARTITIONS)]
        with self._reached():
            commands = self._client.pipeline(transaction=False)
            for tag in tags:
                commands.lrange(tag.levels, 0, -1)
            levels = commands.execute()
            commands = self._client.pipeline(transaction=False)
            for tag, texts in zip(tags, levels, strict=True):
                old = [at for at in (int(text.split()[0]) for text in texts) if at <= offset]
                for at in old:
                    commands.unlink(tag.level(at))
                if old:
                    commands.ltrim(tag.levels, len(old), -1)
            commands.execute()

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """CorruptDataError at the end when rows are missing: a Redis that evicts has dropped them."""
        # a scan may tell of a key twice
        seen: set[bytes] = set()
        with self._reached():
            for batch in _batches(self._client.scan_iter(match=EVERY_ROW, count=_BATCH)):
                new = [key for key in dict.fromkeys(batch) if key not in seen]
                seen.update(new)
                user_keys = [user_key_of(key) for key in new]
                yield from self.fetch(user_keys).items()
            stored = sum(self._standing(tag, value).users for tag, value in self._standings())
        if len(seen) != stored:
            raise CorruptDataError(f"{self._name}: holds {len(seen)} users, {stored} were stored")

    def _standings(self) -> list[tuple[Tag, bytes | None]]:
        tags = [Tag(partition) for partition in range(PARTITIONS)]
        return list(zip(tags, self._values([tag.standing for tag in tags]), strict=True))

    def names(self, partitions: Collection[int]) -> Iterator[str]:
        for partition in partitions:
            with self._reached():
                # the client's types allow for its asynchronous twin
                found = cast("list[bytes]", self._client.zrange(Tag(partition).newest, 0, -1))
            yield from (user_key.decode() for user_key in found)

    def traces_of(self, user_key: str) -> int:
        tag = Tag(partition_of(user_key))
        with self._reached():
            commands = self._client.pipeline(transaction=False)
            commands.exists(tag.row(user_key))
            commands.zscore(tag.newest, user_key)
            commands.lrange(tag.levels, 0, -1)
            row, newest, levels = commands.execute()
            commands = self._client.pipeline(transaction=False)
            for text in levels:
                commands.hexists(tag.level(int(text.split()[0])), user_key)
            return int(row) + (newest is not None) + sum(map(int, commands.execute()))

    def _warn_of_settings(self) -> None:
        try:
            found = {name: self._setting(name) for name in WANTED}
        except redis.ResponseError as error:
            log.warning("redis_settings_unknown", extra={"redis": self._name, "reason": str(error)})
            return
        if wrong := {name: value for name, value in found.items() if value not in WANTED[name]}:
            log.warning("redis_not_durable", extra={"redis": self._name, "settings": wrong, "wanted": WANTED})

    def _setting(self, name: str) -> str:
        return cast("dict[str, str]", self._client.config_get(name)).get(name, "")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise UnavailableError(f"{self._name}: {error}") from error
        except (redis.RedisClusterException, redis.exceptions.ClusterError, redis.ReadOnlyError) as error:
            raise UnavailableError(f"{self._name}: {error}") from error
        except redis.ResponseError as error:
            # inside a script it is told of as an error of the script
            if _OUT_OF_MEMORY in str(error):
                raise UnavailableError(f"{self._name}: {_OUT_OF_MEMORY}") from error
            raise

    def __len__(self) -> int:
        return self._users

    def close(self) -> None:
        self._client.close()


def _batches(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(islice(keys, _BATCH)):
        yield batch
