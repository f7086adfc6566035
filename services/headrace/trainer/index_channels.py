"""Channels to every process of the index, as the settings name them."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from headrace.runtime.channels import open_channel
from headrace.runtime.settings import CommonSettings
from headrace.runtime.shard_addresses import addresses_of
from headrace.runtime.tls import tls_files
from headrace.trainer.settings import TrainerSettings

# of every shard in the order of their numbers: its replicas, each with its address
IndexChannels = Sequence[Sequence[tuple[str, grpc.aio.Channel]]]


def index_channels(settings: TrainerSettings, common: CommonSettings) -> IndexChannels:
    """An open channel to each replica of each shard."""
    tls = tls_files(common)
    return [
        [(address, open_channel(address, tls=tls)) for address in shard]
        for shard in addresses_of(settings.index_address)
    ]


async def close_channels(index: IndexChannels) -> None:
    for _, channel in (each for shard in index for each in shard):
        await channel.close()
