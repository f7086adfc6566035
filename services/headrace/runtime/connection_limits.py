"""What a server bears of connections: how many, how many calls on each, how large headers, how long to say hello."""

from __future__ import annotations

from headrace.runtime.settings import ServingSettings


def connection_limits(settings: ServingSettings) -> list[tuple[str, int]]:
    """gRPC's options for them."""
    return [
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_streams),
        # between the soft limit and the absolute one gRPC refuses by chance
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        # TLS, HTTP/2's preface and settings: who dribbles them is hung up on
        ("grpc.server_handshake_timeout_ms", int(settings.handshake_s * 1e3)),
        # who is gone without a word is found out, and a connection that nobody reads does not stay
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
