"""How many titles hold each word, and the columns of a title by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns
from headrace.model.words import CODES, WORDS, word_codes


class WordCounts:
    """Document frequencies of word codes over the titles that stand."""

    def __init__(self) -> None:
        self._titles = 0
        self._counts = np.zeros(CODES, np.int32)

    def read(self, title: str, before: NDArray[np.float32]) -> NDArray[np.float32]:
        """Word columns of a title (codes, then weights) in the place of those that the item had."""
        old = before[:WORDS].astype(np.int64)
        old, codes = old[old > 0], word_codes(title)
        self._titles += bool(len(codes)) - bool(len(old))
        self._counts[old] -= 1
        self._counts[codes] += 1
        columns = np.zeros(2 * WORDS, np.float32)
        if len(codes):
            # a word that every title holds still says a little, else a shop of one product would have none
            rarity = np.log((self._titles + 1) / self._counts[codes])
            columns[: len(codes)] = codes
            columns[WORDS : WORDS + len(codes)] = rarity / np.linalg.norm(rarity)
        return columns

    def columns(self) -> Columns:
        return {"words.counts": self._counts.copy(), "words.titles": np.array([self._titles])}

    def restore(self, columns: Columns) -> None:
        self._counts = columns["words.counts"].astype(np.int32)
        self._titles = int(columns["words.titles"][0])
