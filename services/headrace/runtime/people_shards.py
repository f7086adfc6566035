"""Which shard of the feature store a person is in: the log's partition of their key, modulo the number of shards.

The same for the store, which keeps its own people, and for those who ask it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from headrace.runtime.eventlog import partition_of
from headrace.runtime.eventlog.log import PARTITIONS
from headrace.runtime.shards import Shard


def shard_of_person(user_key: str, shards: int) -> int:
    """The shard, 0 to `shards` - 1, of "u:" + user_id or "v:" + visitor_id."""
    return partition_of(user_key) % shards


def holds_person(shard: Shard, user_key: str) -> bool:
    """Whether the person is one of the shard's."""
    return shard.count == 1 or shard_of_person(user_key, shard.count) == shard.number


def _checked(text: str) -> str:
    if Shard.parsed(text).count > PARTITIONS:
        raise ValueError(f"there are {PARTITIONS} partitions of people, so at most as many shards, got {text!r}")
    return text


# a setting that names a shard of people: checked when it is read, and kept as it was given
PeopleShardSetting = Annotated[str, AfterValidator(_checked)]
