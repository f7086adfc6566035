"""Page tokens: where the next page begins, tied to the search that it belongs to and the track that began it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from headrace.model.arms import CANARY, STABLE

_TOKEN = struct.Struct("<I8s")


@dataclass(frozen=True, slots=True)
class Page:
    """Where a page begins, and the track that made those before it: another one may order the products otherwise."""

    offset: int = 0
    # empty: there is none before it
    track: str = ""


def page_token(offset: int, search: str, track: str = STABLE) -> str:
    """An opaque token for the page that begins at `offset` of `search` (any text that tells searches apart)."""
    return base64.urlsafe_b64encode(_TOKEN.pack(offset, _digest(offset, search, track))).rstrip(b"=").decode()


def page_of(token: str, search: str) -> Page:
    """Which page it is. ValueError: not a token of ours, or of another search.

    >>> page_of(page_token(40, "red mug"), "red mug")
    Page(offset=40, track='stable')
    """
    try:
        offset, digest = _TOKEN.unpack(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, struct.error, ValueError) as error:
        raise ValueError("not a page token") from error
    for track in (STABLE, CANARY):
        if digest == _digest(offset, search, track):
            return Page(int(offset), track)
    raise ValueError("belongs to another search")


def _digest(offset: int, search: str, track: str) -> bytes:
    text = f"{offset}\n{search}" if track == STABLE else f"{offset}\n{search}\n{track}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
