"""Who is let in at a server: services by their certificates, tenants by their credentials, each to its methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from headrace.runtime.access import Access, Metadata, visiting
from headrace.runtime.call_graph import EXTERNAL_CALLERS, may_call
from headrace.runtime.errors import PermissionDeniedError, UnauthenticatedError
from headrace.runtime.scopes import SERVICES_WITH_TENANTS
from headrace.runtime.settings import CommonSettings, ServingSettings, SettingsError, env_prefix
from headrace.runtime.tls import TlsFiles, tls_files

_IDENTITY = "spiffe://headrace/"


class Connection(Protocol):
    """What a call's context says of the connection that it came over."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...


@dataclass(frozen=True)
class Entrance:
    """The entrance of one service. `with_peers`: connections are by mutual TLS, and `call_graph` holds."""

    service: str
    with_peers: bool = False
    access: Access | None = None

    def at_headers(self, method: str, metadata: Metadata) -> None:
        """Before a message is read. UnauthenticatedError, PermissionDeniedError, OverloadedError."""
        if self.access is None:
            return
        visit = self.access.admitted(method, metadata)
        visiting.set(visit)
        # a certificate may speak for the caller, and shows with the call itself
        if visit is None and not self.with_peers:
            self._demand_credentials(method)

    def at_call(self, method: str, connection: Connection) -> None:
        """Before a call is served. UnauthenticatedError, PermissionDeniedError."""
        if not self.with_peers:
            return
        peer = peer_of(connection)
        if not may_call(peer, self.service, method):
            raise PermissionDeniedError(f"{peer} may not call {method} of {self.service}")
        if peer in EXTERNAL_CALLERS and visiting.get() is None:
            self._demand_credentials(method)

    def _demand_credentials(self, method: str) -> None:
        if self.access is not None and self.access.needs_credentials(method):
            raise UnauthenticatedError(f"{method} needs credentials: authorization: Bearer …, or x-api-key: …")


@dataclass(frozen=True)
class Security:
    """How a server meets its callers: plain and open to everybody, unless it is told otherwise."""

    tls: TlsFiles | None = None
    entrance: Entrance | None = None


OPEN = Security()


def security_of(service: str, settings: ServingSettings, common: CommonSettings) -> Security:
    """What the settings ask for. SettingsError: files that cannot be used."""
    tls = tls_files(common)
    access = _access(service, settings)
    if tls is None and access is None:
        return OPEN
    return Security(tls, Entrance(service, tls is not None, access))


def peer_of(connection: Connection) -> str:
    """`ranker` of a certificate for spiffe://headrace/ranker. UnauthenticatedError: it names none, or several."""
    names = [uri.decode() for uri in connection.auth_context().get("peer_uri", ())]
    ours = [name.removeprefix(_IDENTITY) for name in names if name.startswith(_IDENTITY)]
    if len(ours) != 1:
        raise UnauthenticatedError(f"the certificate must name one {_IDENTITY}<service>, it names {names}")
    return ours[0]


def _access(service: str, settings: ServingSettings) -> Access | None:
    if settings.auth_file is None:
        return None
    if service not in SERVICES_WITH_TENANTS:
        raise SettingsError(
            f"{env_prefix(service)}AUTH_FILE={str(settings.auth_file)!r}: {service} has no methods for tenants;"
            " certificates (HEADRACE_TLS_*) guard it"
        )
    return Access(settings.auth_file)
