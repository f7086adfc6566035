"""What a caller gets back: products in order, why each is there, and a token that ties events to the answer."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import SOURCE_NAMES
from headrace.ranker.catalogue import Listing

_TOKEN_VERSION = 1
_TOKEN = struct.Struct("<BQ8s8s")


@dataclass(frozen=True, slots=True)
class RankedProduct:
    """One place of an answer. A product that the catalogue does not know has no listing."""

    product_id: str
    score: float
    reasons: Sequence[str] = ()
    listing: Listing | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Products, best first, and how the answer came about."""

    products: Sequence[RankedProduct]
    attribution_token: str
    release: str
    space: str
    degraded_reasons: Sequence[str]
    stage_ms: Mapping[str, float]
    state_offset: int
    delta_sequence: int
    next_page_token: str = ""
    total_size: int = 0


class Tokens:
    """Makes attribution tokens: release, time, a random id and a keyed hash of the person."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()[:64]

    def new(self, release: str, user_key: str, time_us: int) -> str:
        person = hashlib.blake2b(user_key.encode(), digest_size=8, key=self._key).digest()
        data = _TOKEN.pack(_TOKEN_VERSION, time_us, os.urandom(8), person) + release.encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What an attribution token says."""

    release: str
    time_us: int
    answer_id: str
    person: str


def token_facts(token: str) -> TokenFacts:
    """Reads a token again. ValueError when it is none of ours."""
    try:
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        version, time_us, answer_id, person = _TOKEN.unpack_from(data)
        release = data[_TOKEN.size :].decode()
    except (binascii.Error, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not an attribution token: {token!r}") from error
    if version != _TOKEN_VERSION:
        raise ValueError(f"attribution token of version {version}, this code reads {_TOKEN_VERSION}")
    return TokenFacts(release, time_us, answer_id.hex(), person.hex())


def source_names(sources: int) -> list[str]:
    """The names of a bit mask of sources."""
    return [name for bit, name in SOURCE_NAMES.items() if sources & bit]


def reasons(sources: NDArray[np.uint8], features: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Why each product is there: its sources, then its strongest features."""
    return [[*source_names(int(bits)), *names] for bits, names in zip(sources, features, strict=True)]
