"""Signatures of releases: Ed25519 over everything that a ranker goes by when it loads one.

Only the learner has the private key. Who can write to the registry or the artifact store, but has not got that,
can make no ranker load weights of his own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.runtime.errors import HeadraceError, SettingsError
from headrace.runtime.settings import CommonSettings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# a signature for one purpose is none for another
_PURPOSE = b"headrace release manifest 1\n"
_PUBLIC_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class UntrustedError(HeadraceError):
    """A release is not signed, or not by a key that is trusted, or is not what was signed."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is signed of a release. `parts`: SHA-256 by name; `checksum`: of the manifest, so of all that is in it."""

    release: str
    space: str
    delta_sequence: int
    feature_schema: str
    dimension: int
    parts: Mapping[str, str]
    checksum: str

    def canonical(self) -> bytes:
        """The same bytes wherever they are made."""
        said = asdict(self) | {"parts": dict(self.parts)}
        return _PURPOSE + json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


class ReleaseSigner:
    """Signs by the private key of a file. SettingsError: it holds none."""

    def __init__(self, path: Path) -> None:
        self._key = _private_key(path)

    def signature(self, statement: Statement) -> str:
        """128 hexadecimal digits."""
        return self._key.sign(statement.canonical()).hex()


class ReleaseVerifier:
    """Trusts the public keys of a file: several while one replaces another. SettingsError: it holds none.

    The file is read at every check, which is once a release: a key that is taken out is trusted no more.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _public_keys(path)

    def check(self, statement: Statement, signature: str) -> None:
        """UntrustedError unless one of the keys signed exactly this."""
        from cryptography.exceptions import InvalidSignature

        if not signature:
            raise UntrustedError(f"release {statement.release} is not signed")
        try:
            data = bytes.fromhex(signature)
            keys = _public_keys(self._path)
        except (ValueError, SettingsError) as error:
            raise UntrustedError(f"release {statement.release}: {error}") from error
        for key in keys:
            try:
                key.verify(data, statement.canonical())
            except InvalidSignature:
                continue
            return
        raise UntrustedError(f"release {statement.release} is not what a trusted key signed")


def release_signer(common: CommonSettings) -> ReleaseSigner | None:
    """The signer of a learner; None where the settings name no key."""
    path = common.release_signing_key_file
    return ReleaseSigner(path) if path else None


def release_verifier(common: CommonSettings) -> ReleaseVerifier | None:
    """What a ranker and the registry check by; None where the settings name no key."""
    path = common.release_verify_key_file
    return ReleaseVerifier(path) if path else None


def new_pair() -> tuple[bytes, bytes]:
    """A private key and its public half, PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"HEADRACE_RELEASE_SIGNING_KEY_FILE={str(path)!r}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            f"HEADRACE_RELEASE_SIGNING_KEY_FILE={str(path)!r}: must be Ed25519, is {type(key).__name__}"
        )
    return key


def _public_keys(path: Path) -> list[Ed25519PublicKey]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        keys = [load_pem_public_key(pem) for pem in _PUBLIC_PEM.findall(path.read_bytes())]
    except (OSError, ValueError) as error:
        raise SettingsError(f"HEADRACE_RELEASE_VERIFY_KEY_FILE={str(path)!r}: {error}") from error
    found = [key for key in keys if isinstance(key, Ed25519PublicKey)]
    if not found or len(found) < len(keys):
        raise SettingsError(f"HEADRACE_RELEASE_VERIFY_KEY_FILE={str(path)!r}: must hold Ed25519 public keys, PEM")
    return found
