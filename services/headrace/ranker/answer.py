"""What a caller gets back: products in order, why each is there, and a token that ties events to the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import SOURCE_NAMES
from headrace.ranker.catalogue import Listing
from headrace.ranker.impressions import Shown


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
    # the track that made it
    track: str
    # of an answer to another ranker: what that one is to log if it shows it
    shown: Shown | None = None
    next_page_token: str = ""
    total_size: int = 0


def source_names(sources: int) -> list[str]:
    """The names of a bit mask of sources."""
    return [name for bit, name in SOURCE_NAMES.items() if sources & bit]


def reasons(sources: NDArray[np.uint8], features: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Why each product is there: its sources, then its strongest features."""
    return [[*source_names(int(bits)), *names] for bits, names in zip(sources, features, strict=True)]
