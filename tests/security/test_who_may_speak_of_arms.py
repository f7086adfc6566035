"""Who may force an arm, and who may say that a call was sent on: tenants, keys and certificates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.ranker.marks import UNMARKED, Marks
from headrace.ranker.trust import Forwarders, may_force
from headrace.runtime.access import Access, visiting
from headrace.runtime.errors import PermissionDeniedError

SECRET = "open sesame"
WITH_KEY = Marks(forced_arm="canary", force_key=SECRET)
FORWARDED = Marks(forwarded_to="canary", rollout="ro-000001", arm="canary")


@dataclass
class Connection:
    """One of a certificate for a service; none: over plaintext."""

    service: str = ""

    def auth_context(self) -> Mapping[str, list[bytes]]:
        return {"peer_uri": [f"spiffe://headrace/{self.service}".encode()]} if self.service else {}


@pytest.fixture
def tenants(tmp_path: Path) -> Access:
    path = tmp_path / "auth.toml"
    scopes = {"tester": ["read", "arm:force"], "shop": ["read"]}
    path.write_text("".join(_tenant(name, names) for name, names in scopes.items()))
    return Access(path)


def _tenant(name: str, scopes: list[str]) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f'[tenants.{name}]\nscopes = {scopes}\n[[tenants.{name}.api_keys]]\nid = "{name}"\nsha256 = "{digest}"\n'


def _calls(tenants: Access, name: str) -> None:
    visiting.set(tenants.admitted("Recommend", (("x-api-key", name),)))


@pytest.fixture(autouse=True)
def nobody_calls():
    visiting.set(None)
    yield
    visiting.set(None)


def test_with_tenants_the_scope_decides_and_the_shared_key_opens_nothing(tenants: Access) -> None:
    forces = may_force(SECRET, with_tenants=True)
    _calls(tenants, "shop")
    assert not forces(WITH_KEY)
    _calls(tenants, "tester")
    assert forces(Marks(forced_arm="canary"))
    # a call that no tenant makes has no scope
    visiting.set(None)
    assert not forces(WITH_KEY)


def test_without_tenants_the_shared_key_decides() -> None:
    assert may_force(SECRET, with_tenants=False)(WITH_KEY)
    assert not may_force(SECRET, with_tenants=False)(Marks(forced_arm="canary", force_key="guess"))
    assert not may_force("", with_tenants=False)(Marks(forced_arm="canary"))


@pytest.mark.parametrize("peer", ["storefront", "operator", "trainer"])
def test_with_certificates_only_a_ranker_may_send_a_call_on(peer: str) -> None:
    forwarders = Forwarders(with_peers=True)
    forwarders.check(FORWARDED, Connection("ranker"))
    forwarders.check(UNMARKED, Connection(peer))
    for marks in (FORWARDED, Marks(rollout="ro-000001"), Marks(arm="stable")):
        with pytest.raises(PermissionDeniedError, match="rankers alone"):
            forwarders.check(marks, Connection(peer))


@pytest.mark.parametrize("with_peers", [True, False])
def test_a_tenant_never_sends_a_call_on(tenants: Access, with_peers: bool) -> None:
    _calls(tenants, "tester")
    with pytest.raises(PermissionDeniedError):
        Forwarders(with_peers=with_peers).check(FORWARDED, Connection("storefront"))


def test_where_nobody_is_asked_anybody_is_a_ranker() -> None:
    Forwarders(with_peers=False).check(FORWARDED, Connection())
