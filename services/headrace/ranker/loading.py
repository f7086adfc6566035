"""Loads a release through gate 0, up to where it can answer, without holding up those that are answered meanwhile.

Reading and copying weights goes to a thread, since it lets go of the interpreter. Many small operations in a thread
would fight with the event loop for it (a call waits half a millisecond at each), so they take turns with the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from headrace.model.serving_model import TEXT_PART, ServingModel
from headrace.model.text.encoder import FindEncoder, TextEncoder, no_encoder
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.feeds import VectorFeed
from headrace.ranker.gate_zero import GateZero, RefusedError
from headrace.ranker.plan import ReleaseManifest
from headrace.ranker.served import Served
from headrace.ranker.turns import Turns
from headrace.runtime.errors import CorruptDataError, HeadraceError, NotFoundError

T = TypeVar("T")


class NotReadyError(HeadraceError):
    """A release cannot be served yet; it is tried again while it is wanted."""


class PartSource(Protocol):
    """Where the parts of releases are: the registry."""

    async def part(self, release: str, name: str) -> bytes:
        """CorruptDataError, NotFoundError, UnavailableError."""


class ReleaseLoader:
    """Makes a `Served` of a manifest. What waits for vectors is not loaded again."""

    def __init__(
        self,
        source: PartSource,
        catalogue: Catalogue,
        pool: Executor,
        gate: GateZero,
        turns: Turns,
        *,
        vectors_wait_s: float,
        find_encoder: FindEncoder = no_encoder,
    ) -> None:
        self._source = source
        self._catalogue = catalogue
        self._pool = pool
        self._gate = gate
        self._turns = turns
        self._vectors_wait_s = vectors_wait_s
        self._find_encoder = find_encoder
        self._waiting: dict[ReleaseManifest, ServingModel] = {}
        # of the last release, by the checksum of its part: the next one of a lineage mostly has the same
        self._fitted: dict[str, TextEncoder] = {}

    async def load(self, manifest: ReleaseManifest, feed: VectorFeed, served: Served | None) -> Served:
        """The release, checked beside the one that is served. RefusedError, NotReadyError, UnavailableError."""
        model = self._waiting.get(manifest) or await self._model(manifest)
        self._waiting[manifest] = model
        await self.await_vectors(manifest, feed)
        beside = served.model if served else None
        await self._in_turns(self._gate.warm(model, feed.vectors, self._catalogue, beside))
        del self._waiting[manifest]
        return Served(manifest.release, model, feed.vectors)

    def forget_all_but(self, wanted: Collection[ReleaseManifest]) -> None:
        """Drops what waits and is wanted no longer."""
        self._waiting = {manifest: model for manifest, model in self._waiting.items() if manifest in wanted}

    async def await_vectors(self, manifest: ReleaseManifest, feed: VectorFeed) -> None:
        """NotReadyError: the index's vectors are still older than the towers."""
        if await feed.reach(manifest.delta_sequence, self._vectors_wait_s):
            return
        have = f"sequence {feed.vectors.applied_sequence}" if feed.vectors.is_whole else "none yet"
        raise NotReadyError(
            f"vectors of space {manifest.space!r} from the index: {have}, needs {manifest.delta_sequence}"
        )

    async def _model(self, manifest: ReleaseManifest) -> ServingModel:
        self._gate.check_manifest(manifest)
        text = dict(manifest.checksums).get(TEXT_PART, "")
        fitted = self._fitted.get(text)
        parts = {
            name: await self._part(manifest, name, sha256)
            for name, sha256 in manifest.checksums
            if fitted is None or name != TEXT_PART
        }
        model = await self._in_pool(lambda: self._gate.model(manifest, parts, self._find_encoder, fitted))
        await self._in_turns(self._gate.golden(model))
        self._fitted = {text: model.encoder} if text else {}
        return model

    async def _part(self, manifest: ReleaseManifest, name: str, sha256: str) -> bytes:
        try:
            data = await self._source.part(manifest.release, name)
        except (CorruptDataError, NotFoundError) as error:
            raise RefusedError(str(error)) from error
        await self._in_pool(lambda: self._gate.check_part(data, sha256, name))
        return data

    async def _in_turns(self, pieces: Iterator[None]) -> None:
        is_over = object()
        while True:
            await self._turns.next()
            if next(pieces, is_over) is is_over:
                return

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
