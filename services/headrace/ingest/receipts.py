"""Receipts of erasures: JSON, signed by Ed25519 with a key that follows from the suite's privacy key."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headrace.runtime.errors import InvalidRequestError
from headrace.runtime.privacy import Privacy

_SIGNATURE, _KEY, _KEY_ID = "signature", "public_key", "public_key_id"


class Signer:
    """Signs receipts. All replicas of a suite sign by the same key, since they have the same privacy key."""

    def __init__(self, privacy: Privacy) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(privacy.derived("receipts"))
        self.public_key = self._key.public_key().public_bytes_raw()

    def signed(self, facts: dict[str, Any]) -> bytes:
        """The receipt that says `facts`."""
        body = facts | {_KEY: self.public_key.hex(), _KEY_ID: key_id(self.public_key)}
        signature = self._key.sign(_canonical(body)).hex()
        return json.dumps(body | {_SIGNATURE: signature}, indent=2, sort_keys=True, ensure_ascii=False).encode()


def key_id(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:16]


def checked(receipt: bytes, public_key: bytes) -> dict[str, Any]:
    """What a receipt says. InvalidRequestError: it is not as it was signed by that key, or not by that key."""
    try:
        body = json.loads(receipt)
        signature, claimed = bytes.fromhex(body.pop(_SIGNATURE)), bytes.fromhex(body[_KEY])
        signed = _canonical(body)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InvalidRequestError.of("receipt", f"is none: {error!r}") from error
    if claimed != public_key:
        # whoever forges a receipt can sign it too, by a key of their own
        raise InvalidRequestError.of(
            "receipt", f"is signed by key {key_id(claimed)}, this suite's is {key_id(public_key)}"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except InvalidSignature as error:
        raise InvalidRequestError.of("receipt", "was changed after it was signed") from error
    return dict(body)


def _canonical(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
