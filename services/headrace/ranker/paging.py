"""Page tokens: where the next page begins, tied to the search that it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct

_TOKEN = struct.Struct("<I8s")


def page_token(offset: int, search: str) -> str:
    """An opaque token for the page that begins at `offset` of `search` (any text that tells searches apart)."""
    return base64.urlsafe_b64encode(_TOKEN.pack(offset, _digest(offset, search))).rstrip(b"=").decode()


def page_offset(token: str, search: str) -> int:
    """Where the page begins. ValueError: not a token of ours, or of another search.

    >>> page_offset(page_token(40, "red mug"), "red mug")
    40
    """
    try:
        offset, digest = _TOKEN.unpack(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, struct.error, ValueError) as error:
        raise ValueError("not a page token") from error
    if digest != _digest(offset, search):
        raise ValueError("belongs to another search")
    return int(offset)


def _digest(offset: int, search: str) -> bytes:
    return hashlib.blake2b(f"{offset}\n{search}".encode(), digest_size=8).digest()
