"""Loads a release in small steps off the event loop, through gate 0, up to where it can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from headrace.model.serving_model import ServingModel
from headrace.model.text.encoder import FindEncoder, no_encoder
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.feeds import VectorFeed
from headrace.ranker.gate_zero import GateZero, RefusedError
from headrace.ranker.plan import ReleaseManifest
from headrace.ranker.served import Served
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
        *,
        vectors_wait_s: float,
        find_encoder: FindEncoder = no_encoder,
    ) -> None:
        self._source = source
        self._catalogue = catalogue
        self._pool = pool
        self._gate = gate
        self._vectors_wait_s = vectors_wait_s
        self._find_encoder = find_encoder
        self._waiting: dict[ReleaseManifest, ServingModel] = {}

    async def load(self, manifest: ReleaseManifest, feed: VectorFeed, served: Served | None) -> Served:
        """The release, checked beside the one that is served. RefusedError, NotReadyError, UnavailableError."""
        model = self._waiting.get(manifest) or await self._model(manifest)
        self._waiting[manifest] = model
        await self.await_vectors(manifest, feed)
        beside = served.model if served else None
        await self._in_pool(lambda: self._gate.check_warm(model, feed.vectors, self._catalogue, beside))
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
        parts = {name: await self._part(manifest, name, sha256) for name, sha256 in manifest.checksums}
        model = await self._in_pool(lambda: self._gate.model(manifest, parts, self._find_encoder))
        await self._in_pool(lambda: self._gate.check_golden(model))
        return model

    async def _part(self, manifest: ReleaseManifest, name: str, sha256: str) -> bytes:
        try:
            data = await self._source.part(manifest.release, name)
        except (CorruptDataError, NotFoundError) as error:
            raise RefusedError(str(error)) from error
        await self._in_pool(lambda: self._gate.check_part(data, sha256, name))
        return data

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
