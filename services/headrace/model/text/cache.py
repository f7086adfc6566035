"""Each distinct text is computed once: its vector is kept, and who asks meanwhile waits for it.

Q texts, T width.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from headrace.model.text.encoder import EncoderName, TextEncoder

_Vector = NDArray[np.float32]
# a hash instead of the text: long texts cost no more than short ones
_KEY_BYTES = 16


class CachedEncoder:
    """An encoder with the vectors of the `limit` texts asked for last (30 MB for 20,000 of 384 numbers)."""

    def __init__(self, encoder: TextEncoder, limit: int = 20_000) -> None:
        self._encoder = encoder
        self._limit = limit
        self._kept: OrderedDict[bytes, Future[_Vector]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> EncoderName:
        return self._encoder.name

    @property
    def width(self) -> int:
        return self._encoder.width

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Q × T."""
        wanted = {_key(text): text for text in texts}
        vectors, own = self._claimed(wanted)
        self._compute({key: wanted[key] for key in own}, vectors)
        found_QT = np.empty((len(texts), self.width), np.float32)
        for row, text in enumerate(texts):
            found_QT[row] = vectors[_key(text)].result()
        return found_QT

    def _claimed(self, wanted: Mapping[bytes, str]) -> tuple[dict[bytes, Future[_Vector]], list[bytes]]:
        """A future for every text, and the keys of those that it falls to the caller to compute."""
        with self._lock:
            own = [key for key in wanted if key not in self._kept]
            vectors = {key: self._kept.setdefault(key, Future()) for key in wanted}
            for key in wanted:
                self._kept.move_to_end(key)
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return vectors, own

    def _compute(self, texts: Mapping[bytes, str], vectors: Mapping[bytes, Future[_Vector]]) -> None:
        if not texts:
            return
        try:
            computed = self._encoder.encode(list(texts.values()))
        except BaseException as error:
            # those who wait must hear of it, and the next who asks tries again
            for key in texts:
                vectors[key].set_exception(error)
            self._forget(texts)
            raise
        for key, vector in zip(texts, computed, strict=True):
            vectors[key].set_result(vector.copy())

    def _forget(self, keys: Mapping[bytes, str]) -> None:
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_KEY_BYTES).digest()
