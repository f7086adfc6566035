"""Searches on a few threads, so that the event loop never waits for arithmetic."""

# Q queries, K wanted, D dimension

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import faiss
import numpy as np

from headrace.index.checking import Checkable, Checker
from headrace.index.rows import F32, U8, U32, Found
from headrace.index.segment import Segment
from headrace.index.ties import nobody
from headrace.runtime.errors import OverloadedError

T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """What is searched: by vectors, or by the vectors of items."""

    queries_QD: F32 | None
    items_Q: U32 | None
    k: int
    allow: U8 | None
    deny: U32

    @property
    def count(self) -> int:
        """How many queries it holds."""
        queries = self.items_Q if self.queries_QD is None else self.queries_QD
        return 0 if queries is None else len(queries)


class Searcher:
    """Runs searches on `threads` threads; refuses more than `limit` at a time; checks a share of them afterwards.

    Searches that score no more than `at_once` rows in all are made on the event loop: handing them over takes longer.
    """

    def __init__(self, threads: int, limit: int, check_share: float = 0.0, at_once: int = 0) -> None:
        # Faiss reads OMP_NUM_THREADS once a process and the setting once a thread
        self._pool = ThreadPoolExecutor(threads, "index-search", initializer=partial(faiss.omp_set_num_threads, 1))
        self._limit = limit
        self._at_once = at_once
        # that run or wait for a thread
        self.running = 0
        self.checker = Checker(check_share, self._pool)

    async def nearest(self, segment: Segment, query: Query) -> Found:
        """What a query finds. OverloadedError when too many are waiting."""
        is_small = query.count * len(segment) <= self._at_once
        answer = found(segment, query) if is_small else await self._in_turn(partial(found, segment, query))
        if isinstance(segment, Checkable) and query.queries_QD is not None:
            check = partial(segment.check, query.queries_QD[:1], query.k, query.allow, query.deny)
            self.checker.consider(len(query.queries_QD), check)
        return answer

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self.running >= self._limit:
            raise OverloadedError(f"{self.running} searches are waiting", retry_after_s=0.1)
        self.running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.running -= 1

    def close(self) -> None:
        self._pool.shutdown()


def default_threads() -> int:
    """One a core that this process may use."""
    return len(os.sched_getaffinity(0))


def found(segment: Segment, query: Query) -> Found:
    """The nearest of each query; an item that is not in the segment finds nothing."""
    if query.items_Q is None:
        assert query.queries_QD is not None
        return segment.search(query.queries_QD, query.k, query.allow, query.deny)
    known, place_Q = np.unique(query.items_Q, return_inverse=True)
    rows = segment.get(known)
    there_Q = np.isin(query.items_Q, rows.ordinals)
    # `get` answers in the order asked, which `unique` made ascending
    vectors_QD = rows.vectors_ND[np.searchsorted(rows.ordinals, known[place_Q[there_Q]])]
    if not there_Q.any():
        return nobody(len(there_Q), query.k, segment.sequence)
    part = segment.search(vectors_QD, query.k, query.allow, query.deny)
    whole = nobody(len(there_Q), query.k, part.sequence)
    whole.counts_Q[there_Q] = part.counts_Q
    whole.ordinals_QK[there_Q] = part.ordinals_QK
    whole.scores_QK[there_Q] = part.scores_QK
    return whole
