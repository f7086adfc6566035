"""The way of one partition back to an earlier offset: what was put aside above it is put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import redis

from headrace.feature_store.histories import newest_us
from headrace.feature_store.redis_rows import Standing, Tag
from headrace.runtime.errors import CorruptDataError


@dataclass(frozen=True, slots=True)
class WayBack:
    """From where a partition is to `standing`: rows that change (empty: they go), and the levels that do."""

    tag: Tag
    standing: Standing
    rows: Mapping[str, bytes]
    levels: tuple[int, ...]

    def take(self, client: redis.Redis | redis.RedisCluster, process: str) -> None:
        """Goes it, whole or not at all; the partition is `process`'s then."""
        tag, standing = self.tag, Standing(self.standing.fold, process, self.standing.offset, self.standing.users)
        commands = client.pipeline(transaction=True)
        for user_key, row in self.rows.items():
            if row:
                commands.set(tag.row(user_key), row)
                commands.zadd(tag.newest, {user_key: newest_us(row)})
            else:
                commands.delete(tag.row(user_key))
                commands.zrem(tag.newest, user_key)
        for level in self.levels:
            commands.delete(tag.level(level))
            commands.rpop(tag.levels)
        commands.set(tag.standing, standing.text())
        commands.execute()


def rolled_back(client: redis.Redis | redis.RedisCluster, tag: Tag, fold: str, offset: int, name: str) -> WayBack:
    """The way back of a partition of `fold` to `offset`. CorruptDataError when there is none."""
    commands = client.pipeline(transaction=True)
    commands.get(tag.standing)
    commands.lrange(tag.levels, 0, -1)
    value, levels = commands.execute()
    standing = Standing.parse(value)
    if standing is None:
        raise CorruptDataError(f"{name}: no {tag.standing}: the Redis was emptied, or is another one")
    if standing.fold != fold:
        raise CorruptDataError(f"{name}: {tag.standing} is of another fold of the log")
    rows: dict[str, bytes] = {}
    passed: list[int] = []
    at, users = standing.offset, standing.users
    for text in reversed(levels):
        level, before, users_before = map(int, text.split())
        if at <= offset or level != at:
            break
        # older levels are read later, and have the last word
        # the client's types allow for its asynchronous twin
        replaced = cast("dict[bytes, bytes]", client.hgetall(tag.level(level)))
        rows.update((user.decode(), row) for user, row in replaced.items())
        passed.append(level)
        at, users = before, users_before
    if at != offset:
        raise CorruptDataError(f"{name}: {tag.standing} is at {standing.offset}, no way leads to {offset}")
    return WayBack(tag, Standing(fold, standing.process, offset, users), rows, tuple(passed))
