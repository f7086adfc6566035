"""Keeps the catalogue, the words and the vectors in memory equal to what the peers say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray

from headrace.model.items import ITEM_FEATURES
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.feature_store import FeatureStore
from headrace.ranker.following import followed
from headrace.ranker.lexical import LexicalIndex
from headrace.ranker.peers import ItemsUpdate, VectorsUpdate
from headrace.ranker.vector_index import VectorIndex
from headrace.ranker.vectors import Vectors
from headrace.runtime.errors import FailedPreconditionError


class ItemFeed:
    """Takes the item stream into the catalogue and the word index."""

    def __init__(self, peer: FeatureStore, catalogue: Catalogue, lexical: LexicalIndex, retry_s: float) -> None:
        self._peer = peer
        self._catalogue = catalogue
        self._lexical = lexical
        self._retry_s = retry_s
        self._named: set[int] = set()

    async def run(self) -> None:
        async for update in followed("items", self._watch, self._retry_s):
            self.apply(update)

    async def _watch(self) -> AsyncIterator[ItemsUpdate]:
        self._named = set()
        async for update in self._peer.watch_items():
            if update.feature_names and update.feature_names != ITEM_FEATURES:
                raise FailedPreconditionError(f"the feature store's columns are {update.feature_names}")
            yield update

    def apply(self, update: ItemsUpdate) -> None:
        catalogue = self._catalogue
        catalogue.update(update.rows)
        catalogue.put(update.listings)
        self._lexical.put(update.listings)
        if update.deleted:
            self._remove(update.deleted)
        if update.is_snapshot:
            self._note_snapshot(update)
        catalogue.advance(update.now_us, update.offset)

    def _note_snapshot(self, update: ItemsUpdate) -> None:
        self._named.update(listing.ordinal for listing in update.listings)
        if not update.ends_snapshot:
            return
        # a store that restarted may still be behind what is known here: only a newer one can have forgotten
        if update.offset >= self._catalogue.offset:
            self._remove(tuple(self._catalogue.listed_ordinals() - self._named))
        self._catalogue.is_loaded = True
        self._named = set()

    def _remove(self, ordinals: tuple[int, ...]) -> None:
        if ordinals:
            self._catalogue.remove(ordinals)
            self._lexical.remove(ordinals)


class VectorFeed:
    """Follows one space's vectors while `run` runs."""

    def __init__(self, peer: VectorIndex, space: str, retry_s: float) -> None:
        self.vectors = Vectors(space)
        self._peer = peer
        self._retry_s = retry_s
        self._advanced = asyncio.Event()
        self._named: list[NDArray[np.uint32]] = []

    async def run(self) -> None:
        space = self.vectors.space
        async for update in followed(f"vectors of {space}", self._watch, self._retry_s):
            self.apply(update)

    def _watch(self) -> AsyncIterator[VectorsUpdate]:
        self._named = []
        return self._peer.watch_vectors(self.vectors.space)

    def apply(self, update: VectorsUpdate) -> None:
        vectors = self.vectors
        if update.is_snapshot:
            self._named.append(update.ordinals)
        if update.ends_snapshot and update.applied_sequence >= vectors.applied_sequence:
            # what was deleted while the stream was lost is in no snapshot
            vectors.keep_only(np.concatenate(self._named))
        vectors.apply(update.ordinals, update.vectors, update.tombstones, update.applied_sequence, update.log_offset)
        for change in update.traces:
            vectors.changes.note(change.traceparent, change.ordinals)
        if update.ends_snapshot or not update.is_snapshot:
            vectors.is_whole = True
            self._named = []
            self._advanced.set()

    async def reach(self, sequence: int, timeout_s: float) -> bool:
        """Whether the whole space up to `sequence` is here, waiting up to `timeout_s` for it."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (self.vectors.is_whole and self.vectors.applied_sequence >= sequence):
                    self._advanced.clear()
                    await self._advanced.wait()
        except TimeoutError:
            return False
        return True
