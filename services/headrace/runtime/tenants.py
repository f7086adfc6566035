"""The file of tenants: who they are, by which keys they are known, what they may do and how often.

::

    [tenants.shop]
    scopes = ["read", "write"]
    requests_per_s = 500
    [[tenants.shop.api_keys]]
    id = "web-2026"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

    [jwt]
    issuer = "https://login.shop.example"
    audience = "headrace"
    [[jwt.keys]]
    id = "2026-01"
    algorithm = "EdDSA"
    key_file = "login.pem"
"""

from __future__ import annotations

import hashlib
import secrets
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from headrace.runtime.errors import SettingsError
from headrace.runtime.scopes import SCOPE_OF, SCOPES

_KEY_PREFIX = "hk_"
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ApiKey(_Strict):
    """A key by its hash: whoever reads the file cannot call."""

    id: Name
    sha256: Sha256
    expires: AwareDatetime | None = None


class Tenant(_Strict):
    """What one tenant may do."""

    scopes: frozenset[str]
    # only these of the methods that the scopes open; empty: all of them
    methods: frozenset[str] = frozenset()
    # at each replica; a message of a stream counts like a call
    requests_per_s: float = Field(100.0, gt=0)
    burst: int = Field(200, ge=1)
    api_keys: tuple[ApiKey, ...] = ()

    @field_validator("scopes")
    @classmethod
    def _are_scopes(cls, scopes: frozenset[str]) -> frozenset[str]:
        return _known(scopes, SCOPES)

    @field_validator("methods")
    @classmethod
    def _are_methods(cls, methods: frozenset[str]) -> frozenset[str]:
        return _known(methods, frozenset(SCOPE_OF))


class JwtKey(_Strict):
    """A key by which tokens are signed. The algorithm is the key's, whatever a token says of itself."""

    id: str = Field(min_length=1)
    algorithm: Literal["EdDSA", "RS256", "HS256"]
    # beside the file of tenants, or with a path: PEM of the public key; with HS256 the secret itself, 32 bytes or more
    key_file: Path


class Jwt(_Strict):
    """Whose JSON Web Tokens are taken."""

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    leeway_s: float = Field(10.0, ge=0, le=300)
    # the claim that names the tenant; "scope" says what the token is for, within what the tenant may do
    tenant_claim: str = Field("tenant", min_length=1)
    keys: tuple[JwtKey, ...] = Field(min_length=1)


class Tenants(_Strict):
    """The whole file."""

    tenants: dict[Name, Tenant]
    jwt: Jwt | None = None


def read_tenants(path: Path) -> Tenants:
    """The file's content. SettingsError names every entry that is wrong."""
    try:
        found = Tenants.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise SettingsError(f"{path}: {'; '.join(faults)}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from error
    _check_hashes(path, found)
    return found


def new_api_key() -> str:
    """A key with 256 random bits: a plain hash of it cannot be searched for."""
    return _KEY_PREFIX + secrets.token_urlsafe(32)


def hash_of(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()


def entry_of(tenant: str, key_id: str, api_key: str, expires: datetime | None = None) -> str:
    """What the file says of a key."""
    until = f"expires = {expires.isoformat()}\n" if expires else ""
    return f'[[tenants.{tenant}.api_keys]]\nid = "{key_id}"\nsha256 = "{hash_of(api_key)}"\n{until}'


def _known(given: frozenset[str], known: frozenset[str]) -> frozenset[str]:
    if unknown := sorted(given - known):
        raise ValueError(f"{', '.join(unknown)} is not known; known: {', '.join(sorted(known))}")
    return given


def _check_hashes(path: Path, found: Tenants) -> None:
    seen: dict[str, str] = {}
    for name, tenant in found.tenants.items():
        for key in tenant.api_keys:
            place = f"tenants.{name}.api_keys {key.id!r}"
            if key.sha256 in seen:
                raise SettingsError(f"{path}: {place} is the same key as {seen[key.sha256]}")
            seen[key.sha256] = place
