"""Client channels that find a replaced server quickly and lose no call to a rolling restart.

With grpcio's default timers a replaced pod is unreachable for 28 s and a rolling restart loses half
the calls; these settings lose none. An option whose name gRPC does not know is ignored without a word,
so a test holds these names against the library.
"""

from __future__ import annotations

import ipaddress
import json

import grpc

from headrace.runtime.errors import InvalidRequestError
from headrace.runtime.renewing_channel import RenewingChannel
from headrace.runtime.tls import Certificates, TlsFiles

# bounds one stream's silence on a dead peer; servers take pings every 5 s (serving.py)
_KEEPALIVE_MS = 20_000

_BALANCED: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
_RETRIED: dict[str, object] = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                # 5 is the most that gRPC does
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                # CANCELLED: gRPC's server lets a call that came in the moment of its stop fall; ours never say it
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    # a server that is lost with hundreds of calls in flight has all of them tried again; where most calls fail
    # for long (what stands behind the servers is away) they are no longer multiplied
    "retryThrottling": {"maxTokens": 1_000, "tokenRatio": 1},
}

# servers that say NOT_SERVING are passed over (gRPC A17), those without the health service are asked
_BY_HEALTH: dict[str, object] = {"healthCheckConfig": {"serviceName": ""}}

Options = list[tuple[str, str | int]]


def open_channel(
    address: str,
    max_message_bytes: int = 64 << 20,
    *,
    retries: bool = True,
    to_ready: bool = False,
    tls: TlsFiles | None = None,
) -> grpc.aio.Channel:
    """A channel to `address`: host:port, a DNS name with several addresses, or IP addresses in a list; by mutual TLS
    with `tls`, else plain.

    Unary calls that a server did not answer are tried again, so servers must be idempotent: ours are. Not so without
    `retries`, for callers that would rather ask somebody else at once. With `to_ready` a server that says that it is
    not ready gets no calls. InvalidRequestError: names in a list.
    """
    target, options = target_of(address), channel_options(max_message_bytes, retries=retries, to_ready=to_ready)
    if tls is None:
        return grpc.aio.insecure_channel(target, options)
    return RenewingChannel(Certificates(tls), lambda credentials: grpc.aio.secure_channel(target, credentials, options))


def channel_options(max_message_bytes: int, *, retries: bool, to_ready: bool = False) -> Options:
    """What gRPC is told of every channel."""
    config = _BALANCED | (_RETRIED if retries else {}) | (_BY_HEALTH if to_ready else {})
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.enable_retries", int(retries)),
        # what is longer than this buffer is not tried again; by default that is 256 KiB, less than a batch of events
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        # names are resolved anew when a connection is lost, but at most so often (default: 30 s)
        ("grpc.dns_min_time_between_resolutions_ms", 500),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # in spite of its name the time that an attempt to connect gets (default: 20 s, spent on an address without
        # a host); a handshake with a busy server takes longer than the back-off
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 5_000),
        # by default the third ping on a stream without news, and all after it, are left out
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.use_local_subchannel_pool", 1),
    ]


def target_of(address: str) -> str:
    """What gRPC calls one or several addresses. InvalidRequestError: names in a list, which no resolver takes.

    >>> target_of("10.0.0.1:7405,10.0.0.2:7405"), target_of("ranker.shop.svc:7405")
    ('ipv4:10.0.0.1:7405,10.0.0.2:7405', 'ranker.shop.svc:7405')
    """
    parts = [part.strip() for part in address.split(",")]
    if len(parts) == 1 or parts[0].startswith(("ipv4:", "ipv6:")):
        return address
    versions = {_version(part) for part in parts}
    if len(versions) != 1 or None in versions:
        raise InvalidRequestError.of("address", f"a list must be of IP addresses of one kind, got {address!r}")
    return f"ipv{versions.pop()}:{','.join(parts)}"


def _version(address: str) -> int | None:
    host, _, port = address.rpartition(":")
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).version if port.isdecimal() else None
    except ValueError:
        return None


def is_lost(error: grpc.aio.AioRpcError) -> bool:
    """Whether a stream ended because the server went away, so that it is to be begun anew.

    grpc.aio says UNAVAILABLE; CANCELLED where the server let it fall (who cancels his own call gets a CancelledError);
    or INTERNAL of its own accord when this side was writing at that moment.
    """
    was_writing = error.code() == grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"
    return was_writing or error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
