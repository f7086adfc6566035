"""What every text encoder is, and how a release names the one that it needs.

Q texts, T width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.model.text.errors import TextEncoderError


@dataclass(frozen=True, slots=True)
class EncoderName:
    """Which encoder made a vector: two of one name give a text the same vector.

    `digest` is the SHA-256 of the weights; empty for weights that are fitted to a shop and travel with a release.
    """

    kind: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.digest}".strip()


class TextEncoder(Protocol):
    """Maps texts to vectors of `width` numbers, of length 1 (or 0 for a text without a known part).

    A text's vector is a function of the text alone, to the bit: it does not depend on what stands beside it.
    Safe to call from several threads at once.
    """

    @property
    def name(self) -> EncoderName: ...

    @property
    def width(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Q × T."""
        ...


# the encoder of a name, or TextEncoderError
FindEncoder = Callable[[EncoderName], TextEncoder]


def no_encoder(name: EncoderName) -> TextEncoder:
    """For those who have none."""
    raise TextEncoderError(f"the text encoder {name} is needed, and there is none here")
