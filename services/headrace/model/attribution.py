"""Attribution tokens: what an answer gives out and the events that follow bring back, signed.

A token says which release answered, in which rollout and arm, when and, by a keyed hash, whom. Nobody without the
suite's key can make one, or change one, or use one that was given to somebody else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
from dataclasses import dataclass

from headrace.model.arms import STABLE

_VERSION = 2
# version, time, answer, person; then texts with their lengths; then the signature
_HEAD = struct.Struct("<BQ8s8s")
_SIGNATURE_BYTES = 12
_PURPOSE_PERSON, _PURPOSE_TOKEN = b"person", b"token"


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What an attribution token says. `person` is a keyed hash; rollout and arm are empty outside a rollout."""

    release: str
    time_us: int
    answer_id: str
    person: str
    rollout: str = ""
    arm: str = ""
    # the track that made the answer
    track: str = STABLE


class Tokens:
    """Makes and reads the tokens of one suite, which `key` (32 secret bytes) belongs to.

    >>> tokens = Tokens(b"k" * 32)
    >>> facts = tokens.facts(tokens.new(release="r-000042", user_key="u:eve", time_us=1))
    >>> facts.release, tokens.is_of(facts, "u:eve"), tokens.is_of(facts, "u:bob")
    ('r-000042', True, False)
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def new(
        self, *, release: str, user_key: str, time_us: int, rollout: str = "", arm: str = "", track: str = STABLE
    ) -> str:
        """A token for one answer; no two are the same."""
        head = _HEAD.pack(_VERSION, time_us, os.urandom(8), self._person(user_key))
        signed = head + b"".join(_text(text) for text in (release, rollout, arm, track))
        return _text_of(signed + self._signature(signed))

    def facts(self, token: str) -> TokenFacts:
        """What a token says. ValueError: it is none of this suite's, or somebody changed it."""
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError) as error:
            raise _not_ours(token) from error
        if _text_of(data) != token:
            # base64 can be spelled in several ways, and a token that counts once must have one name
            raise _not_ours(token)
        signed, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(self._signature(signed), signature) or signed[:1] != bytes([_VERSION]):
            raise _not_ours(token)
        _, time_us, answer_id, person = _HEAD.unpack_from(signed)
        release, rollout, arm, track = _texts(signed[_HEAD.size :])
        return TokenFacts(release, time_us, answer_id.hex(), person.hex(), rollout, arm, track)

    def is_of(self, facts: TokenFacts, user_key: str) -> bool:
        """Whether the token was given to this person."""
        return hmac.compare_digest(facts.person, self._person(user_key).hex())

    def _person(self, user_key: str) -> bytes:
        return hmac.digest(self._key, _PURPOSE_PERSON + user_key.encode(), hashlib.sha256)[:8]

    def _signature(self, signed: bytes) -> bytes:
        return hmac.digest(self._key, _PURPOSE_TOKEN + signed, hashlib.sha256)[:_SIGNATURE_BYTES]


def _text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _text(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _texts(data: bytes) -> list[str]:
    texts = []
    while data:
        texts.append(data[1 : 1 + data[0]].decode())
        data = data[1 + data[0] :]
    return texts


def _not_ours(token: str) -> ValueError:
    return ValueError(f"not an attribution token of this suite: {token[:80]!r}")
