"""What it costs a call at the door to say who makes it: nobody is asked, an API key, a token, certificates with a key.

`python -m benchmarks.door_security [--quick] --json PATH`. All arms run in turn, round by round, in one process with
the server, one call after the other: a call holds both ends' work and that of the headers on their way. What the door
itself does with the headers, which is what the bars are about, is measured alone beside it: a call's own work is some
hundred times as much and varies by more than that.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from benchmarks.arguments import base_parser
from benchmarks.results import Bar, Result
from headrace.runtime.access import API_KEY, AUTHORIZATION, Access
from headrace.runtime.channels import open_channel
from headrace.runtime.entrance import OPEN, Entrance, Security
from headrace.runtime.serving import Background, Face, Parts, running
from headrace.runtime.settings import ServingSettings
from headrace.runtime.tenants import entry_of, new_api_key
from headrace.v1 import ingest_pb2, ingest_pb2_grpc
from tests.security.authority import Authority

CALLS, ROUNDS = 500, 12
Metadata = tuple[tuple[str, str], ...]


@dataclass
class Arm:
    """One way to call, and the microseconds of a call in every round: of CPU, and until its answer."""

    name: str
    stub: Any
    metadata: Metadata
    entrance: Entrance | None
    cpu_us: list[float]
    round_trip_us: list[float]

    async def run(self, calls: int) -> None:
        request = ingest_pb2.DeleteProductRequest(product_id="p")
        begun, cpu_begun = time.perf_counter(), time.process_time()
        for _ in range(calls):
            await self.stub.DeleteProduct(request, metadata=self.metadata)
        self.cpu_us.append((time.process_time() - cpu_begun) / calls * 1e6)
        self.round_trip_us.append((time.perf_counter() - begun) / calls * 1e6)

    def alone_us(self, calls: int) -> float:
        """Microseconds of the door's own work before a message is read; the best of five rounds."""
        entrance = self.entrance
        if entrance is None:
            return 0.0

        def at_the_door() -> None:
            entrance.at_headers("DeleteProduct", self.metadata)
            entrance.at_call("DeleteProduct", _Storefront())

        return min(timeit.repeat(at_the_door, number=calls, repeat=5)) / calls * 1e6


class _Storefront:
    """What gRPC knows of a storefront's connection."""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_uri": [b"spiffe://headrace/storefront"]}


class Nothing(ingest_pb2_grpc.IngestServiceServicer):
    """Does nothing: what is left is the door."""

    async def DeleteProduct(self, request: Any, context: Any) -> ingest_pb2.DeleteProductResponse:
        return ingest_pb2.DeleteProductResponse()


@asynccontextmanager
async def arms(folder: Path) -> AsyncIterator[list[Arm]]:
    """All arms with their servers."""
    key, authority = new_api_key(), Authority()
    access, token = _access(folder, key)
    server_files = authority.write(folder / "server", authority.pair("ingest"))
    client_files = authority.write(folder / "client", authority.pair("storefront"))
    ways = [
        ("open", OPEN, None, ()),
        ("api key", Security(None, Entrance("ingest", access=access)), None, ((API_KEY, key),)),
        ("token", Security(None, Entrance("ingest", access=access)), None, ((AUTHORIZATION, f"Bearer {token}"),)),
        ("certificates", Security(server_files, Entrance("ingest", True)), client_files, ()),
        (
            "certificates and key",
            Security(server_files, Entrance("ingest", True, access)),
            client_files,
            ((API_KEY, key),),
        ),
    ]
    async with AsyncExitStack() as stack:
        found = []
        for name, security, tls, metadata in ways:
            server = await stack.enter_async_context(running(_parts(), ServingSettings(drain_s=0), security=security))
            channel: grpc.aio.Channel = await stack.enter_async_context(open_channel(server.address, tls=tls))
            found.append(Arm(name, ingest_pb2_grpc.IngestServiceStub(channel), metadata, security.entrance, [], []))
        yield found


def _parts() -> Parts:
    face = Face(
        "headrace.v1.IngestService",
        lambda server: ingest_pb2_grpc.add_IngestServiceServicer_to_server(Nothing(), server),
    )
    return Parts([face], Background())


def _access(folder: Path, key: str) -> tuple[Access, str]:
    private = ed25519.Ed25519PrivateKey.generate()
    (folder / "login.pem").write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (folder / "auth.toml").write_text(
        '[tenants.shop]\nscopes = ["write"]\nrequests_per_s = 1e9\nburst = 1000000\n'
        + entry_of("shop", "bench", key)
        + '[jwt]\nissuer = "bench"\naudience = "headrace"\n'
        + '[[jwt.keys]]\nid = "a"\nalgorithm = "EdDSA"\nkey_file = "login.pem"\n'
    )
    claims = {"tenant": "shop", "scope": "write", "iss": "bench", "aud": "headrace", "exp": time.time() + 3_600}
    return Access(folder / "auth.toml"), jwt.encode(claims, private, "EdDSA", headers={"kid": "a"})


async def measured(calls: int, rounds: int) -> list[Arm]:
    """Every arm, warm, in `rounds` rounds."""
    with tempfile.TemporaryDirectory() as folder:
        async with arms(Path(folder)) as found:
            for _ in range(rounds + 1):
                for arm in found:
                    await arm.run(calls)
            for arm in found:
                # the first round warms up
                del arm.cpu_us[0], arm.round_trip_us[0]
            return found


def main() -> int:
    arguments = base_parser(__doc__, "fewer rounds").parse_args()
    calls, rounds = (200, 3) if arguments.quick else (CALLS, ROUNDS)
    found = asyncio.run(measured(calls, rounds))
    open_us = found[0].cpu_us
    rows = [
        {
            "arm": arm.name,
            "door_alone_us": round(arm.alone_us(calls), 1),
            "round_trip_us": round(statistics.median(arm.round_trip_us), 1),
            "cpu_us": round(statistics.median(arm.cpu_us), 1),
            "cpu_more_than_open_us": round(
                statistics.median(x - y for x, y in zip(arm.cpu_us, open_us, strict=True)), 1
            ),
            "cpu_spread_us": round(max(arm.cpu_us) - min(arm.cpu_us), 1),
        }
        for arm in found
    ]
    alone = {str(row["arm"]): float(str(row["door_alone_us"])) for row in rows}
    bars = [Bar.at_most(f"{arm}: µs of the door alone", 10, alone[arm]) for arm in ("api key", "token")]
    Result("door_security", {"calls": calls, "rounds": rounds}, [], rows, bars).write(arguments.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
