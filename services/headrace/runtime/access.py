"""Who may call: tenants by API key or JSON Web Token, each with its scopes and its rate.

A caller brings `authorization: Bearer <key or token>` or `x-api-key: <key>` in the metadata of a call.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from headrace.runtime.errors import (
    OverloadedError,
    PermissionDeniedError,
    SettingsError,
    UnauthenticatedError,
)
from headrace.runtime.followed_files import FollowedFiles
from headrace.runtime.json_web_tokens import JsonWebTokens
from headrace.runtime.scopes import SCOPE_OF
from headrace.runtime.tenants import Tenant, read_tenants
from headrace.runtime.token_bucket import TokenBucket

log = logging.getLogger(__name__)

AUTHORIZATION, API_KEY = "authorization", "x-api-key"
_BEARER = "bearer "
Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, what for, and until when its credentials hold (seconds since 1970)."""

    tenant: str
    scopes: frozenset[str]
    methods: frozenset[str]
    bucket: TokenBucket
    expires_s: float


@dataclass(slots=True)
class _Book:
    """One reading of the file: keys by their hashes, tenants by name."""

    tenants: dict[str, Tenant]
    by_hash: dict[str, Caller]
    tokens: JsonWebTokens | None
    number: int = 0
    buckets: dict[str, TokenBucket] = field(default_factory=dict)


class Access:
    """The file of tenants, followed. SettingsError when it cannot be read to begin with."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._followed = FollowedFiles(path)
        self._book = self._opened(None)

    def admitted(self, method: str, metadata: Metadata) -> Visit | None:
        """A call that may go on; None where it brought no credentials, or needs none.

        UnauthenticatedError, PermissionDeniedError, OverloadedError (with the time to wait).
        """
        scope = SCOPE_OF.get(method)
        credential = _credential(metadata)
        if scope is None or credential is None:
            return None
        caller = self._checked(credential, method, scope)
        wait_s = caller.bucket.take(time.monotonic())
        if wait_s:
            raise OverloadedError(f"tenant {caller.tenant!r} calls more often than it may", retry_after_s=wait_s)
        return Visit(self, credential, method, scope, caller, self._book.number)

    def needs_credentials(self, method: str) -> bool:
        return method in SCOPE_OF

    def book_number(self) -> int:
        self._renew()
        return self._book.number

    def _checked(self, credential: str, method: str, scope: str) -> Caller:
        self._renew()
        caller = self._known(credential)
        if scope not in caller.scopes:
            raise PermissionDeniedError(f"{method} needs the scope {scope!r}, which {caller.tenant!r} has not got here")
        if caller.methods and method not in caller.methods:
            raise PermissionDeniedError(f"{method} is not among the methods of tenant {caller.tenant!r}")
        return caller

    def _known(self, credential: str) -> Caller:
        now_s = time.time()
        caller = self._book.by_hash.get(hashlib.sha256(credential.encode()).hexdigest())
        if caller is None:
            return self._by_token(credential, now_s)
        if now_s >= caller.expires_s:
            raise UnauthenticatedError("the API key has expired")
        return caller

    def _by_token(self, credential: str, now_s: float) -> Caller:
        book = self._book
        if book.tokens is None or credential.count(".") != 2:
            raise UnauthenticatedError("the API key is not known")
        claims = book.tokens.claims(credential, now_s)
        tenant = book.tenants.get(claims.tenant)
        if tenant is None:
            raise UnauthenticatedError(f"the token's tenant {claims.tenant!r} is not known")
        bucket = book.buckets[claims.tenant]
        return Caller(claims.tenant, tenant.scopes & claims.scopes, tenant.methods, bucket, claims.expires_s)

    def _renew(self) -> None:
        if not self._followed.changed():
            return
        try:
            self._book = self._opened(self._book)
        except SettingsError as error:
            # who was let in stays in; who was to be let out too, so this must be seen
            log.error("auth_file_refused", extra={"reason": str(error)})
            return
        log.info("auth_file_renewed", extra={"tenants": len(self._book.tenants)})

    def _opened(self, before: _Book | None) -> _Book:
        found = read_tenants(self._path)
        tokens = JsonWebTokens(found.jwt, self._path.parent) if found.jwt else None
        book = _Book(found.tenants, {}, tokens, before.number + 1 if before else 0)
        for name, tenant in found.tenants.items():
            book.buckets[name] = bucket = _bucket(tenant, before.buckets.get(name) if before else None)
            for key in tenant.api_keys:
                expires_s = key.expires.timestamp() if key.expires else float("inf")
                book.by_hash[key.sha256] = Caller(name, tenant.scopes, tenant.methods, bucket, expires_s)
        return book


@dataclass(slots=True)
class Visit:
    """One call of a tenant; a stream is asked again with every message."""

    _access: Access
    _credential: str
    _method: str
    _scope: str
    caller: Caller
    _book_number: int

    async def next_message(self) -> None:
        """Returns when the tenant's rate lets one more message in. Errors as of `admitted`, but for the rate's."""
        if self._access.book_number() != self._book_number or time.time() >= self.caller.expires_s:
            self.caller = self._access._checked(self._credential, self._method, self._scope)
            self._book_number = self._access.book_number()
        while wait_s := self.caller.bucket.take(time.monotonic()):  # noqa: ASYNC110  # a clock fills it, no task does
            # the caller's window fills meanwhile: it is slowed down, nothing is lost
            await asyncio.sleep(wait_s)


# the visit that is being served; None: nobody was asked, or a service of the suite calls
visiting: ContextVar[Visit | None] = ContextVar("visiting", default=None)


def is_granted(scope: str) -> bool:
    """Whether the caller of the call being served has a scope. Everybody has where no file of tenants is kept."""
    visit = visiting.get()
    return visit is None or scope in visit.caller.scopes


def _bucket(tenant: Tenant, before: TokenBucket | None) -> TokenBucket:
    if before is not None and (before.rate_per_s, before.burst) == (tenant.requests_per_s, tenant.burst):
        return before
    return TokenBucket(tenant.requests_per_s, tenant.burst, time.monotonic())


def _credential(metadata: Metadata) -> str | None:
    for key, value in metadata:
        if key == API_KEY and isinstance(value, str):
            return value
        if key == AUTHORIZATION and isinstance(value, str):
            if value[: len(_BEARER)].lower() != _BEARER:
                raise UnauthenticatedError("authorization must be 'Bearer <key or token>'")
            return value[len(_BEARER) :]
    return None
