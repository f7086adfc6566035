"""Batches of things."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from headrace.datasets.source import BATCH

T = TypeVar("T")


def batches(things: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Lists of `size` things; the last may be shorter.

    >>> list(batches([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    iterator = iter(things)
    while batch := list(islice(iterator, size)):
        yield batch
