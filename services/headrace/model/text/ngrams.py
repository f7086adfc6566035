"""Hashed n-grams under a truncated SVD: an encoder fitted to the shop's own titles.

Q texts, T width, V hash buckets.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from headrace.model.text.encoder import EncoderName
from headrace.model.words import words_of

KIND = "ngrams"
_BUCKETS = 1 << 14
_NGRAMS = (3, 4, 5)
_WORD_WEIGHT = 2.0
_POWER_ITERATIONS = 2


@dataclass(frozen=True)
class HashedNgramEncoder:
    """Hashed character 3- to 5-grams and words, weighed by rarity, projected by a truncated SVD.

    Fitted once from titles (latent semantic analysis, Deerwester et al. 1990); needs no download and
    survives typing errors, since most n-grams of a misspelt word are right. Directions that the
    titles cannot fill (fewer titles than dimensions) are random, so that later titles still differ.
    """

    weights_V: NDArray[np.float32]
    projection_VT: NDArray[np.float32]

    @property
    def name(self) -> EncoderName:
        return EncoderName(KIND)

    @property
    def width(self) -> int:
        return int(self.projection_VT.shape[1])

    @classmethod
    def fit(cls, titles: Sequence[str], width: int, seed: int) -> HashedNgramEncoder:
        """An encoder for texts like `titles`; the same titles and seed give the same encoder."""
        counts = _hashed(titles)
        documents_V = np.bincount(counts.indices, minlength=_BUCKETS)
        weights_V = np.log((1 + len(titles)) / (1 + documents_V)).astype(np.float32) + 1
        weighted = _normalised(counts.multiply(weights_V).tocsr())
        projection_VT = _directions(weighted, width, np.random.default_rng(seed))
        return cls(weights_V, projection_VT.astype(np.float32))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Q × T."""
        weighted = _normalised(_hashed(texts).multiply(self.weights_V).tocsr())
        vectors_QT = np.asarray(weighted @ self.projection_VT, dtype=np.float32)
        lengths_Q1 = np.linalg.norm(vectors_QT, axis=1, keepdims=True)
        return np.asarray(vectors_QT / np.maximum(lengths_Q1, 1e-6), dtype=np.float32)

    def aligned_to(self, other: HashedNgramEncoder, texts: Sequence[str]) -> HashedNgramEncoder:
        """The same encoder turned so that `texts` lie as near as can be to where `other` puts them.

        What was learned over `other`'s vectors keeps its meaning (orthogonal Procrustes, Schönemann 1966).
        """
        left, _, right = np.linalg.svd(self.encode(texts).T @ other.encode(texts))
        turned_VT = self.projection_VT @ (left @ right).astype(np.float32)
        return HashedNgramEncoder(self.weights_V, turned_VT)


def _directions(rows: sparse.csr_matrix, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """V × T orthonormal: the strongest directions of `rows`, then random ones (Halko et al. 2011)."""
    basis_VT = rng.standard_normal((rows.shape[1], width))
    for _ in range(_POWER_ITERATIONS):
        basis_VT = _orthonormal(rows.T @ (rows @ basis_VT) + 1e-6 * basis_VT)
    strongest = np.linalg.eigh(_square(rows @ basis_VT))[1][:, ::-1]
    return np.asarray(basis_VT @ strongest, dtype=np.float64)


def _square(projected: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(projected.T @ projected, dtype=np.float64)


def _orthonormal(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.qr(columns)[0], dtype=np.float64)


def _hashed(texts: Sequence[str]) -> sparse.csr_matrix:
    indices: list[int] = []
    values: list[float] = []
    ends = [0]
    for text in texts:
        found: dict[int, float] = {}
        for part, weight in _parts(text):
            bucket = zlib.crc32(part.encode()) % _BUCKETS
            found[bucket] = found.get(bucket, 0.0) + weight
        indices.extend(found)
        values.extend(found.values())
        ends.append(len(indices))
    data = np.log1p(np.asarray(values, dtype=np.float32))
    return sparse.csr_matrix((data, indices, ends), shape=(len(texts), _BUCKETS))


def _parts(text: str) -> Iterable[tuple[str, float]]:
    for word in words_of(text):
        yield f"={word}", _WORD_WEIGHT
        padded = f"<{word}>"
        for size in _NGRAMS:
            for start in range(len(padded) - size + 1):
                yield padded[start : start + size], 1.0


def _normalised(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(lengths, 1e-6)) @ rows
