"""A state at one offset, as it is written to disk and compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from headrace.feature_store.columns import Columns
from headrace.feature_store.histories import HistoriesCopy


@dataclass(frozen=True, slots=True)
class StateCopy:
    """The state at one offset, safe to write while the fold goes on."""

    offset: int
    fingerprint: str
    columns: Columns
    facts: str
    histories: HistoriesCopy

    def digest(self) -> str:
        """SHA-256 over every count, history and document, wherever it is held."""
        digest = hashlib.sha256(f"{self.facts}{self.histories.digest()}".encode())
        for name in sorted(self.columns):
            values = self.columns[name]
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()
