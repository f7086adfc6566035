from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from headrace.client import Deadlines, connect
from headrace.runtime.channels import open_channel
from headrace.runtime.entrance import Entrance, Security
from headrace.runtime.errors import DeadlineError, UnavailableError
from headrace.runtime.settings import CommonSettings, SettingsError, load
from headrace.runtime.tls import Certificates, TlsFiles, tls_files
from headrace.v1 import ingest_pb2 as pb
from headrace.v1 import ingest_pb2_grpc
from tests.security.authority import Authority
from tests.security.conftest import Echo, delete, failure

Served = Callable[..., Any]


@pytest.fixture
def files(authority: Authority, folder: Path) -> TlsFiles:
    return authority.write(folder / "server", authority.pair("ingest"))


@pytest.fixture
def security(files: TlsFiles) -> Security:
    return Security(files, Entrance("ingest", with_peers=True))


def shown_by(address: str) -> bytes:
    """The certificate that a server shows to somebody without one."""
    host, port = address.split(":")
    return ssl.get_server_certificate((host, int(port))).encode()


async def answered(channel: grpc.aio.Channel, echo: Echo, pem: bytes) -> None:
    """Calls until one comes with this certificate; every call must be answered."""
    async with asyncio.timeout(10):
        while not echo.certificates or echo.certificates[-1] != pem:
            await delete(channel)


async def test_a_caller_that_the_call_graph_names_is_answered(
    served: Served, security: Security, authority: Authority, folder: Path
) -> None:
    mine = authority.write(folder / "shop", authority.pair("storefront"))
    async with served(security) as server, open_channel(server.address, tls=mine) as channel:
        assert (await delete(channel)).offset == 1


async def test_a_storefronts_client_goes_by_its_certificate(
    served: Served, security: Security, authority: Authority, folder: Path
) -> None:
    mine = authority.write(folder / "shop", authority.pair("storefront"))
    async with served(security) as server:
        async with connect(ingest=server.address, tls=mine) as shop:
            assert await shop.delete_product("p1") == 1
        async with connect(ingest=server.address, deadlines=Deadlines(write_s=1)) as shop:
            with pytest.raises((UnavailableError, DeadlineError)):
                await shop.delete_product("p1")


async def test_a_service_may_only_call_what_the_call_graph_says(
    served: Served, security: Security, authority: Authority, folder: Path
) -> None:
    mine = authority.write(folder / "ranker", authority.pair("ranker"))
    async with served(security) as server, open_channel(server.address, tls=mine) as channel:
        error = await failure(delete(channel))
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert error.details() == "ranker may not call DeleteProduct of ingest"


@pytest.mark.parametrize(
    "uris",
    [(), ("spiffe://elsewhere/operator",), ("spiffe://headrace/operator", "spiffe://headrace/ranker")],
    ids=["none", "of another suite", "two"],
)
async def test_a_certificate_that_names_no_single_service_is_nobodys(
    served: Served, security: Security, authority: Authority, folder: Path, uris: tuple[str, ...]
) -> None:
    mine = authority.write(folder / "x", authority.pair("operator", uris=uris))
    async with served(security) as server, open_channel(server.address, tls=mine) as channel:
        # two SPIFFE names are refused by TLS itself
        assert (await failure(delete(channel, timeout=1))).code() in (
            grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.UNAVAILABLE,
        )


async def test_an_expired_a_foreign_and_no_certificate_get_no_connection(
    served: Served, security: Security, authority: Authority, folder: Path, echo: Echo
) -> None:
    foreign = Authority("somebody else")
    expired = authority.write(folder / "expired", authority.pair("operator", days=-1))
    theirs = foreign.write(folder / "foreign", foreign.pair("operator"))
    # what they trust is not the matter here
    theirs.ca.write_bytes(authority.pem)
    async with served(security) as server:
        for tls in (expired, theirs, None):
            async with open_channel(server.address, tls=tls, retries=False) as channel:
                assert (await failure(delete(channel, timeout=2))).code() == grpc.StatusCode.UNAVAILABLE
    assert echo.certificates == []


async def test_a_server_of_another_authority_is_not_spoken_to(
    served: Served, authority: Authority, folder: Path, echo: Echo
) -> None:
    foreign = Authority("somebody else")
    false = foreign.write(folder / "false", foreign.pair("ingest"))
    mine = authority.write(folder / "shop", authority.pair("storefront"))
    # it would take anybody
    false.ca.write_bytes(authority.pem)
    async with (
        served(Security(false, Entrance("ingest", with_peers=True))) as server,
        open_channel(server.address, tls=mine, retries=False) as channel,
    ):
        assert (await failure(delete(channel, timeout=2))).code() == grpc.StatusCode.UNAVAILABLE
    assert echo.certificates == []


async def test_replaced_certificates_are_used_by_new_connections_while_no_call_fails(
    served: Served, security: Security, files: TlsFiles, authority: Authority, folder: Path, echo: Echo
) -> None:
    first, second, of_server = authority.pair("operator"), authority.pair("operator"), authority.pair("ingest")
    mine = authority.write(folder / "mine", first)
    async with served(security) as server, open_channel(server.address, tls=mine) as channel:
        stream = ingest_pb2_grpc.IngestServiceStub(channel).StreamUserEvents()
        await stream.write(pb.StreamUserEventsRequest(sequence=1))
        assert (await stream.read()).sequence == 1

        async def traffic() -> int:
            calls = 0
            while not stop.is_set():
                await asyncio.gather(*(delete(channel) for _ in range(20)))
                calls += 20
            return calls

        stop = asyncio.Event()
        going = asyncio.create_task(traffic())
        await answered(channel, echo, first.cert)
        authority.write(folder / "mine", second)
        authority.write(folder / "server", of_server)
        await answered(channel, echo, second.cert)
        async with asyncio.timeout(10):
            while await asyncio.to_thread(shown_by, server.address) != of_server.cert:
                await delete(channel)
        stop.set()
        assert await going > 0
        # a stream goes on over the connection that it began on
        await stream.write(pb.StreamUserEventsRequest(sequence=2))
        assert (await stream.read()).sequence == 2
        stream.cancel()


def test_a_change_that_is_half_written_is_not_taken(
    authority: Authority, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.runtime.followed_files._LOOK_S", 0)
    before, after = authority.pair("index"), authority.pair("index")
    files = authority.write(folder / "tls", before)
    certificates = Certificates(files)
    files.cert.write_bytes(after.cert)
    assert certificates.newest().cert == before.cert
    files.key.write_bytes(after.key)
    assert certificates.newest().cert == after.cert


def test_files_that_do_not_fit_are_named_at_the_start(authority: Authority, folder: Path) -> None:
    files = authority.write(folder / "tls", authority.pair("index"))
    files.key.write_bytes(authority.pair("index").key)
    with pytest.raises(SettingsError, match=r"HEADRACE_TLS_KEY='.*tls.key'.*KEY_VALUES_MISMATCH"):
        Certificates(files)


def test_all_three_files_are_given_or_none() -> None:
    assert tls_files(load(CommonSettings, {})) is None
    given = {"HEADRACE_TLS_CERT": "/tls/tls.crt", "HEADRACE_TLS_KEY": "/tls/tls.key"}
    with pytest.raises(SettingsError, match="HEADRACE_TLS_CA must be given where"):
        load(CommonSettings, given)
    whole = tls_files(load(CommonSettings, given | {"HEADRACE_TLS_CA": "/tls/ca.crt"}))
    assert whole == TlsFiles(Path("/tls/tls.crt"), Path("/tls/tls.key"), Path("/tls/ca.crt"))
