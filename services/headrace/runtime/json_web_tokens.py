"""JSON Web Tokens of one issuer: checked once, remembered until they expire."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.runtime.errors import SettingsError, UnauthenticatedError
from headrace.runtime.tenants import Jwt, JwtKey

_LONGEST = 8 << 10
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says: whose it is, what for, and until when (seconds since 1970)."""

    tenant: str
    scopes: frozenset[str]
    expires_s: float


class JsonWebTokens:
    """Reads the tokens that `rules` allow; keys' files lie beside `folder`. SettingsError: a key cannot be read."""

    def __init__(self, rules: Jwt, folder: Path, *, memory_tokens: int = 4_096) -> None:
        self._rules = rules
        self._keys = {key.id: (key.algorithm, _loaded(key, folder / key.key_file)) for key in rules.keys}
        # a signature takes 30 to 150 µs to check, and a caller brings the same token with every call
        self._known: dict[bytes, Claims] = {}
        self._memory_tokens = memory_tokens

    def claims(self, token: str, now_s: float) -> Claims:
        """What a token says. UnauthenticatedError: it is not the issuer's, or not for us, or not for now."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._verified(token)
            if len(self._known) >= self._memory_tokens:
                self._known.pop(next(iter(self._known)))
            self._known[digest] = known
        if now_s >= known.expires_s:
            raise UnauthenticatedError("the token has expired")
        return known

    def _verified(self, token: str) -> Claims:
        import jwt

        if len(token) > _LONGEST:
            raise UnauthenticatedError(f"the token has {len(token)} characters, {_LONGEST} are the most")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key = self._key_of(header)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                # of the key, never of the token: "none" and a public key taken for a secret are no way in
                algorithms=[algorithm],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                leeway=self._rules.leeway_s,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise UnauthenticatedError(f"the token does not hold: {error}") from error
        return self._read(claims)

    def _key_of(self, header: dict[str, Any]) -> tuple[str, Any]:
        key_id = header.get("kid")
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if not isinstance(key_id, str) or key_id not in self._keys:
            raise UnauthenticatedError(f"the token is signed by key {key_id!r}, which is not known")
        return self._keys[key_id]

    def _read(self, claims: dict[str, Any]) -> Claims:
        tenant, scope = claims.get(self._rules.tenant_claim), claims.get("scope", "")
        if not isinstance(tenant, str) or not isinstance(scope, str):
            raise UnauthenticatedError(f"the token must say {self._rules.tenant_claim!r} and 'scope' in text")
        return Claims(tenant, frozenset(scope.split()), float(claims["exp"]) + self._rules.leeway_s)


def _loaded(key: JwtKey, path: Path) -> Any:
    from jwt.algorithms import get_default_algorithms
    from jwt.exceptions import InvalidKeyError

    try:
        data = path.read_bytes()
        if key.algorithm == "HS256":
            data = data.strip()
            if len(data) < _SECRET_BYTES:
                raise ValueError(f"a secret has at least {_SECRET_BYTES} bytes, this one has {len(data)}")
        return get_default_algorithms()[key.algorithm].prepare_key(data)
    except (OSError, ValueError, TypeError, InvalidKeyError) as error:
        raise SettingsError(f"jwt.keys {key.id!r}, key_file {str(path)!r}: {error}") from error
