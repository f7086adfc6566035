from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headrace.runtime.access import Access, is_granted
from headrace.runtime.channels import open_channel
from headrace.runtime.entrance import Entrance, Security, security_of
from headrace.runtime.errors import OverloadedError, PermissionDeniedError, UnauthenticatedError
from headrace.runtime.saying_channel import SayingChannel
from headrace.runtime.scopes import ARM_FORCE, ROLLOUT_WRITE, SCOPE_OF
from headrace.runtime.settings import CommonSettings, ServingSettings, SettingsError
from headrace.runtime.tenants import entry_of, new_api_key, read_tenants
from headrace.v1 import ingest_pb2, ingest_pb2_grpc, ranker_pb2, trainer_pb2
from headrace.v1 import ingest_pb2 as pb
from tests.security.authority import Authority
from tests.security.conftest import delete, failure

KEY, READER = new_api_key(), new_api_key()
SHOP = f"""
[tenants.shop]
scopes = ["read", "write", "arm:force"]
{entry_of("shop", "web", KEY)}
[tenants.reports]
scopes = ["read", "write"]
methods = ["GetIngestStatus"]
{entry_of("reports", "nightly", READER)}
"""
SECRET = b"a secret of thirty-two bytes, or of more"
PRIVATE = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
ISSUER, AUDIENCE = "https://login.shop.example", "headrace"


def public_pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.runtime.followed_files._LOOK_S", 0)


@pytest.fixture
def auth_file(tmp_path: Path) -> Path:
    path = tmp_path / "auth.toml"
    path.write_text(SHOP)
    return path


@pytest.fixture
def with_jwt(auth_file: Path) -> Path:
    for name, data in (("ed.pem", public_pem(PRIVATE)), ("rsa.pem", public_pem(RSA)), ("hs.key", SECRET)):
        (auth_file.parent / name).write_bytes(data)
    keys = "".join(
        f'[[jwt.keys]]\nid = "{name}"\nalgorithm = "{algorithm}"\nkey_file = "{name}"\n'
        for name, algorithm in (("ed.pem", "EdDSA"), ("rsa.pem", "RS256"), ("hs.key", "HS256"))
    )
    auth_file.write_text(SHOP + f'[jwt]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nleeway_s = 5\n' + keys)
    return auth_file


def security(auth_file: Path) -> Security:
    return Security(None, Entrance("ingest", access=Access(auth_file)))


def admitted(auth_file: Path, credential: str, method: str = "DeleteProduct") -> Any:
    return Access(auth_file).admitted(method, (("x-api-key", credential),))


def token(key: Any = PRIVATE, algorithm: str = "EdDSA", kid: str = "ed.pem", **claims: Any) -> str:
    said = {"tenant": "shop", "scope": "write", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 60} | claims
    return jwt.encode({k: v for k, v in said.items() if v is not None}, key, algorithm, headers={"kid": kid})


async def test_a_key_opens_what_its_scopes_say_and_nothing_else(served: Callable[..., Any], auth_file: Path) -> None:
    async with served(security(auth_file)) as server, open_channel(server.address) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        assert (await delete(channel, metadata=(("x-api-key", KEY),))).offset == 1
        assert (await delete(SayingChannel(channel, (("authorization", f"Bearer {KEY}"),)))).offset == 1
        refused = await failure(stub.ForgetUser(pb.ForgetUserRequest(user_id="u"), metadata=(("x-api-key", KEY),)))
        assert refused.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "'people:write'" in str(refused.details())
        refused = await failure(delete(channel, metadata=(("x-api-key", READER),)))
        assert (refused.code(), refused.details()) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "DeleteProduct is not among the methods of tenant 'reports'",
        )


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("x-api-key", new_api_key()),),
        (("authorization", "Basic abc"),),
        (("x-api-key", ""),),
        (("x-api-key-bin", b"a"),),
    ],
    ids=["none", "unknown key", "not bearer", "empty", "binary"],
)
async def test_who_does_not_say_who_it_is_is_unauthenticated(
    served: Callable[..., Any], auth_file: Path, metadata: Any
) -> None:
    async with served(security(auth_file)) as server, open_channel(server.address) as channel:
        assert (await failure(delete(channel, metadata=metadata))).code() == grpc.StatusCode.UNAUTHENTICATED


class From:
    """A connection from whoever this certificate is for."""

    def __init__(self, service: str) -> None:
        self._uri = f"spiffe://headrace/{service}".encode()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_uri": [self._uri]}


async def test_a_service_of_the_suite_needs_no_key_where_it_shows_its_certificate(auth_file: Path) -> None:
    entrance = Entrance("ranker", with_peers=True, access=Access(auth_file))
    entrance.at_headers("Recommend", ())
    entrance.at_call("Recommend", From("ranker"))
    with pytest.raises(UnauthenticatedError, match="needs credentials"):
        entrance.at_call("Recommend", From("storefront"))


async def test_with_certificates_whoever_comes_from_outside_needs_a_key_too(
    served: Callable[..., Any], auth_file: Path, authority: Authority, tmp_path: Path
) -> None:
    server_files = authority.write(tmp_path / "ranker", authority.pair("ranker"))
    both = Security(server_files, Entrance("ingest", with_peers=True, access=Access(auth_file)))
    operator = authority.write(tmp_path / "operator", authority.pair("operator"))
    async with served(both) as server, open_channel(server.address, tls=operator) as channel:
        assert (await failure(delete(channel))).code() == grpc.StatusCode.UNAUTHENTICATED
        assert (await delete(channel, metadata=(("x-api-key", KEY),))).offset == 1


async def test_a_tenant_that_calls_too_often_is_told_when_to_come_back(
    served: Callable[..., Any], auth_file: Path
) -> None:
    auth_file.write_text(SHOP.replace("[tenants.shop]", "[tenants.shop]\nrequests_per_s = 0.5\nburst = 3"))
    mine, other = (("x-api-key", KEY),), (("x-api-key", READER),)
    async with served(security(auth_file)) as server, open_channel(server.address) as channel:
        for _ in range(3):
            await delete(channel, metadata=mine)
        error = await failure(delete(channel, metadata=mine))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        info = error_details_pb2.RetryInfo()
        assert rpc_status.from_call(error).details[0].Unpack(info)
        assert 1_000 < info.retry_delay.ToMilliseconds() <= 2_000
        # one tenant's haste is not another's
        await ingest_pb2_grpc.IngestServiceStub(channel).GetIngestStatus(pb.GetIngestStatusRequest(), metadata=other)


async def test_a_stream_is_slowed_down_to_the_rate(served: Callable[..., Any], auth_file: Path) -> None:
    auth_file.write_text(SHOP.replace("[tenants.shop]", "[tenants.shop]\nrequests_per_s = 50\nburst = 1"))
    async with served(security(auth_file)) as server, open_channel(server.address) as channel:
        requests = (pb.StreamUserEventsRequest(sequence=number) for number in range(21))
        stream = ingest_pb2_grpc.IngestServiceStub(channel).StreamUserEvents(requests, metadata=(("x-api-key", KEY),))
        begun = time.monotonic()
        assert [answer.sequence async for answer in stream] == list(range(21))
        assert time.monotonic() - begun >= 20 / 50


async def test_a_key_that_is_taken_out_ends_calls_and_open_streams(served: Callable[..., Any], auth_file: Path) -> None:
    mine = (("x-api-key", KEY),)
    async with served(security(auth_file)) as server, open_channel(server.address) as channel:
        stream = ingest_pb2_grpc.IngestServiceStub(channel).StreamUserEvents(metadata=mine)
        await stream.write(pb.StreamUserEventsRequest(sequence=1))
        assert (await stream.read()).sequence == 1
        auth_file.write_text(SHOP.replace(entry_of("shop", "web", KEY), ""))
        assert (await failure(delete(channel, metadata=mine))).code() == grpc.StatusCode.UNAUTHENTICATED
        await stream.write(pb.StreamUserEventsRequest(sequence=2))
        assert (await failure(stream.read())).code() == grpc.StatusCode.UNAUTHENTICATED


async def test_a_file_that_is_broken_later_leaves_the_last_good_one(
    auth_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(auth_file)
    auth_file.write_text("[tenants.shop]\nscopes = ['everything']")
    assert access.admitted("DeleteProduct", (("x-api-key", KEY),)) is not None
    assert "auth_file_refused" in caplog.text


def test_an_expired_key_is_unauthenticated(auth_file: Path) -> None:
    key = new_api_key()
    auth_file.write_text(SHOP + entry_of("shop", "old", key, datetime.now(UTC) - timedelta(seconds=1)))
    with pytest.raises(UnauthenticatedError, match="expired"):
        admitted(auth_file, key)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(PRIVATE, "EdDSA", "ed.pem"), (RSA, "RS256", "rsa.pem"), (SECRET, "HS256", "hs.key")]
)
def test_a_token_of_the_issuer_opens_what_it_is_for(with_jwt: Path, key: Any, algorithm: str, kid: str) -> None:
    visit = admitted(with_jwt, token(key, algorithm, kid))
    assert (visit.caller.tenant, visit.caller.scopes) == ("shop", {"write"})


def test_a_token_cannot_open_more_than_its_tenant_may(with_jwt: Path) -> None:
    with pytest.raises(PermissionDeniedError, match="rollout:write"):
        admitted(with_jwt, token(scope="write rollout:write"), "CreateRollout")
    with pytest.raises(PermissionDeniedError, match="'write'"):
        admitted(with_jwt, token(scope=None))


def unsigned() -> str:
    _, body, _ = token().split(".")
    none = urlsafe_b64encode(json.dumps({"alg": "none", "kid": "ed.pem"}).encode()).rstrip(b"=").decode()
    return f"{none}.{body}."


def signed_by_the_public_key() -> str:
    """HS256 with the public key of RS256 as the secret: what a reader that trusts the header takes."""
    head = {"alg": "HS256", "typ": "JWT", "kid": "rsa.pem"}
    said = ".".join(
        urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (json.dumps(head).encode(), jwt.utils.base64url_decode(token().split(".")[1]))
    )
    signature = hmac.digest(public_pem(RSA), said.encode(), hashlib.sha256)
    return f"{said}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    "false",
    [
        lambda: token(ed25519.Ed25519PrivateKey.generate()),
        unsigned,
        signed_by_the_public_key,
        lambda: token(kid="unknown"),
        lambda: token(iss="https://elsewhere.example"),
        lambda: token(aud="another suite"),
        lambda: token(exp=time.time() - 6),
        lambda: token(exp=None),
        lambda: token(nbf=time.time() + 60),
        lambda: token(tenant="nobody"),
        lambda: token(tenant=None),
        lambda: token()[:-8] + "AAAAAAAA",
        lambda: token(padding="x" * 9_000),
        lambda: "a.b.c",
    ],
    ids=[
        "another's key", "unsigned", "public key as secret", "unknown key", "issuer", "audience", "expired",
        "for ever", "not yet", "unknown tenant", "no tenant", "changed", "huge", "nonsense",
    ],
)  # fmt: skip
def test_a_token_that_does_not_hold_is_unauthenticated(with_jwt: Path, false: Callable[[], str]) -> None:
    with pytest.raises(UnauthenticatedError):
        admitted(with_jwt, false())


def test_a_remembered_token_ends_when_it_expires(with_jwt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access, mine = Access(with_jwt), (("authorization", f"Bearer {token()}"),)
    assert access.admitted("DeleteProduct", mine) is not None
    later = time.time() + 66
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(UnauthenticatedError, match="expired"):
        access.admitted("DeleteProduct", mine)


def test_methods_of_the_suites_own_services_take_no_keys(auth_file: Path) -> None:
    assert Access(auth_file).admitted("FetchArtifact", (("x-api-key", KEY),)) is None


async def test_the_scope_to_force_an_arm_shows_where_the_call_is_served(auth_file: Path) -> None:
    entrance = Entrance("ranker", access=Access(auth_file))

    async def granted(key: str, method: str) -> bool:
        entrance.at_headers(method, (("x-api-key", key),))
        return is_granted(ARM_FORCE)

    assert is_granted(ARM_FORCE)
    assert await asyncio.create_task(granted(KEY, "Recommend"))
    assert not await asyncio.create_task(granted(READER, "GetIngestStatus"))


def test_every_fault_of_the_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    path.write_text('[tenants.shop]\nscopes = ["reed"]\nburst = 0\n[[tenants.shop.api_keys]]\nid = "a"\nsha256 = "x"\n')
    with pytest.raises(SettingsError) as refused:
        read_tenants(path)
    for told in ("tenants.shop.scopes: ", "reed is not known", "tenants.shop.burst", "tenants.shop.api_keys.0.sha256"):
        assert told in str(refused.value)


def test_one_key_is_one_tenants(tmp_path: Path) -> None:
    path = tmp_path / "auth.toml"
    path.write_text(SHOP + f'[tenants.other]\nscopes = ["read"]\n{entry_of("other", "copied", KEY)}')
    with pytest.raises(SettingsError, match="'copied' is the same key as tenants"):
        read_tenants(path)


def test_a_short_secret_is_no_key(with_jwt: Path) -> None:
    (with_jwt.parent / "hs.key").write_bytes(b"too short")
    with pytest.raises(SettingsError, match=r"jwt.keys 'hs.key'.*at least 32 bytes, this one has 9"):
        Access(with_jwt)


def test_services_without_tenants_refuse_a_file_of_them(auth_file: Path) -> None:
    with pytest.raises(SettingsError, match="HEADRACE_INDEX_AUTH_FILE"):
        security_of("index", ServingSettings(auth_file=auth_file), CommonSettings())


def test_every_method_has_a_scope_or_is_for_services_alone() -> None:
    for_services = {"WatchServingPlan", "FetchArtifact", "ReportServing"}
    with_tenants = {
        method.name
        for module, service in (
            (ingest_pb2, "IngestService"),
            (ranker_pb2, "RankerService"),
            (trainer_pb2, "TrainerService"),
        )
        for method in module.DESCRIPTOR.services_by_name[service].methods
    }
    assert set(SCOPE_OF) == with_tenants - for_services


@pytest.mark.parametrize("method", sorted(method for method, scope in SCOPE_OF.items() if scope == ROLLOUT_WRITE))
def test_rollouts_are_changed_by_keys_that_may_and_by_nobody_else(auth_file: Path, method: str) -> None:
    key = new_api_key()
    auth_file.write_text(SHOP + f'[tenants.ops]\nscopes = ["rollout:write"]\n{entry_of("ops", "one", key)}')
    registry = Entrance("trainer", access=Access(auth_file))
    registry.at_headers(method, (("x-api-key", key),))
    with pytest.raises(PermissionDeniedError, match="'rollout:write'"):
        registry.at_headers(method, (("x-api-key", KEY),))
    with pytest.raises(UnauthenticatedError, match=method):
        registry.at_headers(method, ())


def test_a_bucket_that_is_empty_says_for_how_long(auth_file: Path) -> None:
    auth_file.write_text(SHOP.replace("[tenants.shop]", "[tenants.shop]\nrequests_per_s = 10\nburst = 1"))
    access, mine = Access(auth_file), (("x-api-key", KEY),)
    access.admitted("DeleteProduct", mine)
    with pytest.raises(OverloadedError) as refused:
        access.admitted("DeleteProduct", mine)
    assert 0 < (refused.value.retry_after_s or 0) <= 0.1
