"""Channels to the replicas of one shard."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from headrace.runtime.channels import open_channel
from headrace.runtime.tls import TlsFiles


def replica_channels(addresses: Sequence[str], tls: TlsFiles | None) -> list[grpc.aio.Channel]:
    """One to each. Where there are several, the next is asked at once instead of the same one again."""
    return [open_channel(address, retries=len(addresses) == 1, tls=tls) for address in addresses]
