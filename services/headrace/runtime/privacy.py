"""Names people by keyed hashes: in logs and traces, in tombstones, and beside what is learned from them.

The key is one for the whole suite, `HEADRACE_PRIVACY_KEY` or a file in the data folder that the first process
makes. Without it nobody can tell whose a pseudonym is; with another one, nothing of what was named is found again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from headrace.runtime.atomic import sync_directory
from headrace.runtime.errors import CorruptDataError, NotFoundError
from headrace.runtime.settings import CommonSettings

DIGEST_BYTES = 16
_KEY_BYTES = 32
_FILE = "privacy.key"


class Privacy:
    """Keyed hashes (HMAC-SHA256, cut to 128 bits) of user keys: "u:" + user id, "v:" + visitor id."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.fingerprint = self.derived("fingerprint").hex()[:16]

    def digest(self, user_key: str) -> bytes:
        """16 bytes that stand for a person."""
        return hmac.digest(self._key, user_key.encode(), hashlib.sha256)[:DIGEST_BYTES]

    def pseudonym(self, user_key: str) -> str:
        """What logs, traces and receipts call a person."""
        return pseudonym_of(self.digest(user_key))

    def owner(self, user_key: str) -> int:
        """Half of the digest as a signed number, for columns that say whose a row is."""
        return owner_of(self.digest(user_key))

    def derived(self, purpose: str) -> bytes:
        """32 secret bytes for another purpose, which don't tell the key."""
        # user keys begin with "u:" or "v:", so no person has this digest
        return hmac.digest(self._key, f"headrace {purpose}".encode(), hashlib.sha256)


# for learners that serve no shop, and so have nobody to forget: benchmarks, retraining
UNKEYED = Privacy(b"")


def pseudonym_of(digest: bytes) -> str:
    return "p:" + digest.hex()


def owner_of(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little", signed=True)


def open_privacy(common: CommonSettings, *, must_exist: bool = False) -> Privacy:
    """The suite's hashes. CorruptDataError: the key's file is not whole; NotFoundError: there is none, but must be."""
    if common.privacy_key:
        return Privacy(common.privacy_key.encode())
    path = common.data_dir / _FILE
    if not path.exists():
        if must_exist:
            raise NotFoundError(f"no privacy key at {path}, and HEADRACE_PRIVACY_KEY is not set")
        _make_key(path)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise CorruptDataError(f"{path}: holds {len(key)} bytes, a privacy key has {_KEY_BYTES}")
    return Privacy(key)


def _make_key(path: Path) -> None:
    """A new key in a file that is there whole or not at all; another process may be first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # a link fails where the name is taken: of several processes one makes the key
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
