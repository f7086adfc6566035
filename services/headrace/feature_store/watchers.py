"""Who follows the items, and what each has yet to be told: a set of ordinals, however slow it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.fold import State

# rows of about 450 bytes: messages stay well under 2 MB
_ROWS = 2000
_DOCUMENT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ItemChunk:
    """Rows of some items as they are now, and documents as the contracts' ItemDocument bytes."""

    ordinals: NDArray[np.uint32]
    features: NDArray[np.float32]
    neighbour_ordinals: NDArray[np.uint32]
    neighbour_weights: NDArray[np.float32]
    documents: list[bytes]
    offset: int
    now_us: int


class Watcher:
    """One follower: changes add up until it takes them."""

    def __init__(self) -> None:
        self._items: set[int] = set()
        self._documents: set[int] = set()
        self._changed = asyncio.Event()

    def note(self, items: Iterable[int], documents: Iterable[int]) -> None:
        self._items.update(items)
        self._documents.update(documents)
        self._changed.set()

    async def take(self) -> tuple[list[int], list[int]]:
        """Items and documents that changed since the last call, waiting for the first."""
        await self._changed.wait()
        self._changed.clear()
        items, documents = sorted(self._items), sorted(self._documents)
        self._items, self._documents = set(), set()
        return items, documents


class Watchers:
    """All followers of one state."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def join(self) -> Watcher:
        watcher = Watcher()
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def note(self, items: list[int], documents: list[int]) -> None:
        for watcher in self._watchers:
            watcher.note(items, documents)


def batches(items: list[int], documents: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The same in pieces of at most 2,000 items and as many documents."""
    for start in range(0, max(len(items), len(documents)), _ROWS):
        yield items[start : start + _ROWS], documents[start : start + _ROWS]


def chunks(state: State, items: list[int], documents: list[int]) -> list[ItemChunk]:
    """What the items are now; one chunk, and further ones without rows when the documents are large."""
    first, *rest = _document_groups([state.catalogue.document(ordinal) for ordinal in documents])
    return [_chunk(state, items, first), *(_chunk(state, [], group) for group in rest)]


def _document_groups(documents: list[bytes]) -> list[list[bytes]]:
    groups: list[list[bytes]] = [[]]
    size = 0
    for document in documents:
        if size and size + len(document) > _DOCUMENT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(document)
        size += len(document)
    return groups


def _chunk(state: State, items: list[int], documents: list[bytes]) -> ItemChunk:
    ordinals = np.array(items, np.int64)
    state.of_items.freshen(ordinals)
    columns = state.items
    return ItemChunk(
        ordinals.astype(np.uint32),
        columns.features_NF[ordinals],
        columns.neighbour_ordinals_NK[ordinals],
        columns.neighbour_weights_NK[ordinals],
        documents,
        state.offset,
        state.now_us,
    )
