"""What the ranker asks of the feature store, wherever that is: one process, or shards of people behind replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from headrace.ranker.peers import FeatureStorePeer, ItemsUpdate, UserState
from headrace.ranker.replica_channels import replica_channels
from headrace.ranker.replicas import Replicas
from headrace.runtime.channels import open_channel
from headrace.runtime.people_shards import shard_of_person
from headrace.runtime.shard_addresses import ShardAddresses
from headrace.runtime.tls import TlsFiles


class FeatureStore(Protocol):
    """What is true of users and items."""

    # people are divided among so many shards
    shards: int

    async def state(self, user_key: str, min_offset: int, timeout_s: float) -> UserState:
        """A person's state. DeadlineError, UnavailableError, FailedPreconditionError: asked of the wrong shard."""
        ...

    def watch_items(self) -> AsyncIterator[ItemsUpdate]:
        """All items, then every change, until the peer is lost. UnavailableError."""
        ...


@asynccontextmanager
async def open_feature_store(addresses: ShardAddresses, tls: TlsFiles | None = None) -> AsyncIterator[FeatureStore]:
    """The feature store at these addresses; one process is asked directly."""
    async with AsyncExitStack() as stack:
        if sum(len(shard) for shard in addresses) == 1:
            yield FeatureStorePeer(await stack.enter_async_context(open_channel(addresses[0][0], tls=tls)))
            return
        channels = [
            [await stack.enter_async_context(one) for one in replica_channels(shard, tls)] for shard in addresses
        ]
        yield FeatureStoreShards([[FeatureStorePeer(channel) for channel in shard] for shard in channels])


class FeatureStoreShards:
    """Asks a person's shard for the person, and any process for the items, which are the same in all."""

    def __init__(self, shards: Sequence[Sequence[FeatureStorePeer]]) -> None:
        self.shards = len(shards)
        self._shards = [Replicas(shard) for shard in shards]
        self._all = Replicas([peer for shard in shards for peer in shard])

    async def state(self, user_key: str, min_offset: int, timeout_s: float) -> UserState:
        shard = self._shards[shard_of_person(user_key, self.shards)]
        return await shard.asked(lambda peer, left_s: peer.state(user_key, min_offset, left_s), timeout_s)

    async def watch_items(self) -> AsyncIterator[ItemsUpdate]:
        async for update in self._all.watched(lambda peer: peer.watch_items()):
            yield update
