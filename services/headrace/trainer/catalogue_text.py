"""Which encoder the catalogue's texts go through, and when it is fitted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.model.text.encoder import TextEncoder
from headrace.model.text.errors import TextEncoderError
from headrace.model.text.ngrams import HashedNgramEncoder
from headrace.model.text.pretrained import Pretrained
from headrace.runtime.errors import FailedPreconditionError
from headrace.trainer.arrays import Arrays
from headrace.trainer.settings import TrainerSettings

# an encoder fitted on this many titles is never fitted again
_ENOUGH_TITLES = 2_000
_REFIT_GROWTH = 4


class CatalogueText(Protocol):
    """An encoder, and what it wants of a growing catalogue."""

    @property
    def encoder(self) -> TextEncoder: ...

    def wants_refit(self, titles: int) -> bool:
        """Whether the encoder is to be fitted anew now that there are so many titles."""
        ...

    def refit(self, titles: Sequence[str], known: Sequence[str]) -> None:
        """Fits the encoder to all titles; the vectors of those `known` before stay near."""
        ...

    def arrays(self) -> Arrays: ...

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None: ...


class FittedText:
    """N-grams fitted on the first titles, and again each time that their number has grown fourfold.

    Each fit is turned onto the one before. Once 2,000 titles were there the encoder is frozen.
    """

    def __init__(self, width: int, seed: int) -> None:
        self._seed = seed
        self.encoder = HashedNgramEncoder.fit([], width, seed)
        self._fitted_titles = 0

    def wants_refit(self, titles: int) -> bool:
        return self._fitted_titles < _ENOUGH_TITLES and titles >= max(1, _REFIT_GROWTH * self._fitted_titles)

    def refit(self, titles: Sequence[str], known: Sequence[str]) -> None:
        encoder = HashedNgramEncoder.fit(titles, self.encoder.width, self._seed)
        self.encoder = encoder.aligned_to(self.encoder, known) if known else encoder
        self._fitted_titles = len(titles)

    def arrays(self) -> Arrays:
        return {
            "fitted_titles": np.array([self._fitted_titles]),
            "weights_V": self.encoder.weights_V,
            "projection_VT": self.encoder.projection_VT,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._fitted_titles = int(arrays["fitted_titles"][0])
        self.encoder = HashedNgramEncoder(arrays["weights_V"].copy(), arrays["projection_VT"].copy())


class FrozenText:
    """A pre-trained encoder: never fitted, and no part of the state."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def wants_refit(self, titles: int) -> bool:
        return False

    def refit(self, titles: Sequence[str], known: Sequence[str]) -> None:
        raise AssertionError("a frozen encoder wants no refit")

    def arrays(self) -> Arrays:
        return {}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        return


def pretrained_encoder(settings: TrainerSettings) -> TextEncoder | None:
    """The encoder that the settings name; None for n-grams. FailedPreconditionError: it cannot be opened."""
    if settings.text_encoder == "ngrams":
        return None
    try:
        return Pretrained(settings.text_folder, settings.text_digest).encoder()
    except TextEncoderError as error:
        raise FailedPreconditionError(str(error)) from error
