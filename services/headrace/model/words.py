"""Words of titles as columns of items: how alike a candidate's title is to those of what a person had lately.

A title's first few distinct words are kept as codes with weights that make a vector of length 1, rarer words
heavier. Rarity is that of the time when the title was read, so a row is a function of the log alone.
"""

# W words of a title, D recent items, C candidates, U distinct words

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from headrace.model.buckets import bucket

WORDS = 8
# codes lie below this; 0 is for no word
CODES = 1 << 16

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """Letters and digits that stand together, case aside."""
    return _WORD.findall(text.casefold())


def word_codes(title: str) -> NDArray[np.int64]:
    """Codes of the first distinct words, case aside.

    >>> len(word_codes("Red mug, RED")), len(word_codes("")), len(word_codes("a b c d e f g h i j"))
    (2, 0, 8)
    """
    codes = dict.fromkeys(bucket(word, CODES) for word in words_of(title))
    return np.array(list(codes)[:WORDS], np.int64)


def title_likeness(
    recent_codes_DW: NDArray[np.int64],
    recent_weights_DW: NDArray[np.float32],
    shares_SD: NDArray[np.floating],
    codes_CW: NDArray[np.int64],
    weights_CW: NDArray[np.float32],
) -> NDArray[np.float64]:
    """S × C: mean cosines of candidates' titles to recent ones, for S ways to weigh those (rows that add up to 1)."""
    found = []
    for shares_D in shares_SD:
        told = np.bincount(recent_codes_DW.ravel(), (recent_weights_DW * shares_D[:, None]).ravel(), CODES)
        # 0 stands for no word
        told[0] = 0.0
        found.append((told[codes_CW] * weights_CW).sum(axis=1))
    return np.stack(found)
