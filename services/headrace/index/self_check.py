"""A start-up proof that a segment answers what NumPy answers, on this machine, with these libraries.

Published GPU builds have dropped ID selectors without a word: a library is believed only after this.
"""

# N rows, D dimension, Q queries, K wanted

from __future__ import annotations

import numpy as np

from headrace.index.rows import F32, NO_ORDINALS, U8, U32, Change, Found, Rows
from headrace.index.segment import Segment
from headrace.runtime.errors import HeadraceError

DIMENSION = 16
_ITEMS, _QUERIES, _K = 600, 5, 40


class SegmentCheckError(HeadraceError):
    """A kind of segment gives wrong answers here and must not serve."""


def check_segment(segment: Segment) -> None:
    """Fills an empty segment of dimension 16 and compares its answers with NumPy's.

    Raises SegmentCheckError: deleted or filtered items came back, or the results differ.
    """
    rng = np.random.default_rng(7)
    # whole numbers are exact in float32 in any order of summing; 12 bits would be cut by TF32
    vectors_ND = rng.integers(-4095, 4096, (_ITEMS, DIMENSION)).astype(np.float32)
    vectors_ND[::7] = vectors_ND[0]
    queries_QD = rng.integers(-3, 4, (_QUERIES, DIMENSION)).astype(np.float32)
    ordinals = rng.permutation(2 * _ITEMS)[:_ITEMS].astype(np.uint32)
    segment.write(_change(ordinals, vectors_ND, NO_ORDINALS, 1))
    moved = np.arange(0, _ITEMS, 3)
    vectors_ND[moved] = vectors_ND[moved][:, ::-1]
    live_N = np.ones(_ITEMS, np.bool_)
    live_N[1::5] = False
    live_N[moved] = True
    segment.write(_change(ordinals[moved], vectors_ND[moved], ordinals[~live_N], 2))
    _compare(segment, "all", queries_QD, ordinals[live_N], vectors_ND[live_N], None, NO_ORDINALS)
    for name, share in (("half of the items", 0.5), ("few items", 0.03)):
        allowed = rng.random(2 * _ITEMS) < share
        denied = ordinals[::11].copy()
        kept_N = live_N & allowed[ordinals] & ~np.isin(ordinals, denied)
        allow = np.packbits(allowed, bitorder="little")
        _compare(segment, name, queries_QD, ordinals[kept_N], vectors_ND[kept_N], allow, denied)


def _change(ordinals: U32, vectors_ND: F32, deletes: U32, sequence: int) -> Change:
    numbers = np.full(len(ordinals), sequence, np.int64)
    return Change(Rows(ordinals, vectors_ND, numbers, numbers), deletes, sequence, sequence)


def _compare(
    segment: Segment, name: str, queries_QD: F32, ordinals: U32, vectors_ND: F32, allow: U8 | None, deny: U32
) -> None:
    found = segment.search(queries_QD, _K, allow, deny)
    expected = nearest_by_numpy(queries_QD, ordinals, vectors_ND, _K)
    strangers = np.setdiff1d(found.ordinals_QK[found.scores_QK > -np.inf], ordinals)
    if len(strangers):
        raise SegmentCheckError(f"{segment.kind}, {name}: {len(strangers)} deleted or filtered items came back")
    if not (
        np.array_equal(found.ordinals_QK, expected.ordinals_QK)
        and np.array_equal(found.scores_QK, expected.scores_QK)
        and np.array_equal(found.counts_Q, expected.counts_Q)
    ):
        raise SegmentCheckError(f"{segment.kind}, {name}: results differ from NumPy's")


def nearest_by_numpy(queries_QD: F32, ordinals: U32, vectors_ND: F32, k: int) -> Found:
    """The plainest right answer: every score, sorted by score and then ordinal."""
    scores_QN = queries_QD @ vectors_ND.T
    order_QK = np.lexsort((np.broadcast_to(ordinals, scores_QN.shape), -scores_QN), axis=-1)[:, :k]
    count = order_QK.shape[1]
    found = Found(
        np.full(len(queries_QD), count, np.uint32),
        np.full((len(queries_QD), k), 0xFFFFFFFF, np.uint32),
        np.full((len(queries_QD), k), -np.inf, np.float32),
        0,
    )
    found.ordinals_QK[:, :count] = ordinals[order_QK]
    found.scores_QK[:, :count] = np.take_along_axis(scores_QN, order_QK, axis=1)
    return found
