"""A release that is loaded, with the vectors of its space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.serving_model import ServingModel
from headrace.ranker.vectors import Vectors


@dataclass(frozen=True, slots=True)
class Served:
    """One release with the vectors of its space: what belongs together is held together."""

    release: str
    model: ServingModel
    vectors: Vectors

    def rows(self, ordinals: NDArray[np.uint32]) -> NDArray[np.float32]:
        """One vector an ordinal; zeros where there is none, in a space without any too."""
        rows_ND = self.vectors.rows(ordinals)
        return rows_ND if rows_ND.shape[1] else np.zeros((len(ordinals), self.model.dimension), np.float32)
