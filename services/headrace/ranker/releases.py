"""The release that is being served: loaded whole, checked before anyone is answered by it, swapped at once.

Gate 0 of a rollout is here: checksum, form, feature schema, golden requests, finite scores on the shop's own
items, and the vectors that the towers belong to. What fails is refused and named; what was served stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.model.arms import STABLE
from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA, candidate_features
from headrace.model.history import History
from headrace.model.serving_model import PARTS, ModelError, ServingModel
from headrace.model.text.encoder import FindEncoder, no_encoder
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.feeds import VectorFeed
from headrace.ranker.following import followed
from headrace.ranker.peers import TrainerPeer
from headrace.ranker.plan import HeldPlan, ReleaseManifest, ServingPlan
from headrace.ranker.vectors import Vectors
from headrace.runtime.atomic import check_sha256
from headrace.runtime.errors import CorruptDataError, HeadraceError, NotFoundError

T = TypeVar("T")

log = logging.getLogger(__name__)

_WARM_ROWS = 500
_WARM_ROUNDS = 3


class RefusedError(HeadraceError):
    """A release does not pass; it is not tried again."""


class NotReadyError(HeadraceError):
    """A release cannot be served yet; it is tried again while it is the wanted one."""


@dataclass(frozen=True, slots=True)
class Served:
    """One release with the vectors of its space: what belongs together is held together."""

    release: str
    model: ServingModel
    vectors: Vectors

    def rows(self, ordinals: NDArray[np.uint32]) -> NDArray[np.float32]:
        """One vector an ordinal; zeros where there is none, in a space without any too."""
        rows_ND = self.vectors.rows(ordinals)
        return rows_ND if rows_ND.shape[1] else np.zeros((len(ordinals), self.model.dimension), np.float32)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last release that was not taken, and why."""

    release: str = ""
    reason: str = ""


class Releases:
    """Follows the serving plan for one track; `current` is the release to answer with, None before the first.

    A request reads `current` once and keeps to it, so a swap falls between requests.
    """

    def __init__(
        self,
        trainer: TrainerPeer,
        open_feed: Callable[[str], VectorFeed],
        catalogue: Catalogue,
        pool: Executor,
        held: HeldPlan,
        *,
        track: str = STABLE,
        retry_s: float,
        vectors_wait_s: float,
        find_encoder: FindEncoder = no_encoder,
    ) -> None:
        self.current: Served | None = None
        self.refused = Refusal()
        self._trainer = trainer
        self._open_feed = open_feed
        self._catalogue = catalogue
        self._pool = pool
        self._retry_s = retry_s
        self._vectors_wait_s = vectors_wait_s
        self._find_encoder = find_encoder
        self._held = held
        self._track = track
        self._changed = asyncio.Event()
        self._feeds: dict[str, tuple[VectorFeed, asyncio.Task[None]]] = {}
        self._parts: tuple[str, dict[str, bytes]] = ("", {})

    async def run(self) -> None:
        """Follows the plan for ever; a feed that dies takes this down with it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_plan())
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._settle(group)

    async def _follow_plan(self) -> None:
        async for plan in followed("serving plan", self._trainer.watch_plan, self._retry_s):
            self.want(plan)

    def want(self, plan: ServingPlan) -> None:
        """Notes a plan, unless a later one is known: the numbers only grow."""
        if self._held.take(plan):
            self._changed.set()

    async def _settle(self, group: asyncio.TaskGroup) -> None:
        """Serves what the plan wants, trying again what is not ready until the plan changes."""
        while not self._changed.is_set():
            manifest = self._held.newest.of(self._track) if self._held.newest else None
            if manifest is None or (self.current and self.current.release == manifest.release):
                return
            try:
                await self._take(manifest, group)
            except RefusedError as error:
                self._refuse(manifest, str(error))
                return
            except HeadraceError as error:
                self._refuse(manifest, str(error))
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._retry_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def _refuse(self, manifest: ReleaseManifest, reason: str) -> None:
        refusal = Refusal(manifest.release, reason)
        if refusal != self.refused:
            log.error("release_refused", extra={"release": manifest.release, "reason": reason})
        self.refused = refusal

    async def _take(self, manifest: ReleaseManifest, group: asyncio.TaskGroup) -> None:
        _check_manifest(manifest)
        feed = self._feed(manifest.space, group)
        parts = await self._fetched(manifest)
        model = await self._in_pool(lambda: _loaded(manifest, parts, self._find_encoder))
        await self._await_vectors(manifest, feed)
        await self._in_pool(lambda: _warm(model, feed.vectors, self._catalogue))
        self.current = Served(manifest.release, model, feed.vectors)
        if self.refused.release == manifest.release:
            # it was only late
            self.refused = Refusal()
        log.info("release_swapped", extra={"release": manifest.release, "space": manifest.space})
        self._parts = ("", {})
        self._close_other_feeds(manifest.space)

    def _feed(self, space: str, group: asyncio.TaskGroup) -> VectorFeed:
        if space not in self._feeds:
            feed = self._open_feed(space)
            self._feeds[space] = feed, group.create_task(feed.run())
        return self._feeds[space][0]

    def _close_other_feeds(self, space: str) -> None:
        for other in [name for name in self._feeds if name != space]:
            self._feeds.pop(other)[1].cancel()

    async def _fetched(self, manifest: ReleaseManifest) -> dict[str, bytes]:
        if self._parts[0] != manifest.release:
            parts = {name: await self._fetched_part(manifest, name, sha256) for name, sha256 in manifest.checksums}
            self._parts = manifest.release, parts
        return self._parts[1]

    async def _fetched_part(self, manifest: ReleaseManifest, name: str, sha256: str) -> bytes:
        try:
            data = await self._trainer.part(manifest.release, name)
            check_sha256(data, sha256, name)
        except (CorruptDataError, NotFoundError) as error:
            raise RefusedError(str(error)) from error
        return data

    async def _await_vectors(self, manifest: ReleaseManifest, feed: VectorFeed) -> None:
        if await feed.reach(manifest.delta_sequence, self._vectors_wait_s):
            return
        have = f"sequence {feed.vectors.applied_sequence}" if feed.vectors.is_whole else "none yet"
        raise NotReadyError(
            f"vectors of space {manifest.space!r} from the index: {have}, needs {manifest.delta_sequence}"
        )

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _check_manifest(manifest: ReleaseManifest) -> None:
    if manifest.feature_schema != FEATURE_SCHEMA:
        raise RefusedError(f"feature schema is {manifest.feature_schema!r}, this ranker computes {FEATURE_SCHEMA!r}")
    missing = sorted(set(PARTS) - {name for name, _ in manifest.checksums})
    if missing:
        raise RefusedError(f"the release lacks {', '.join(missing)}")


def _loaded(manifest: ReleaseManifest, parts: dict[str, bytes], find_encoder: FindEncoder) -> ServingModel:
    try:
        model = ServingModel.load(parts, find_encoder)
        model.check_golden()
    except ModelError as error:
        raise RefusedError(str(error)) from error
    for name, own, said in (
        ("space", model.space, manifest.space),
        ("feature schema", model.feature_schema, manifest.feature_schema),
        ("dimension", model.dimension, manifest.dimension),
    ):
        if own != said:
            raise RefusedError(f"{name} is {own!r} in the parts and {said!r} in the manifest")
    return model


def _warm(model: ServingModel, vectors: Vectors, catalogue: Catalogue) -> None:
    """Runs the model on the shop's own items: warm caches, and nothing but finite scores."""
    if vectors.dimension and vectors.dimension != model.dimension:
        raise RefusedError(f"dimension is {model.dimension}, the index's vectors have {vectors.dimension}")
    items, now_us = catalogue.items.view(), catalogue.shop_time_us()
    candidates = np.arange(min(items.count, _WARM_ROWS), dtype=np.uint32)
    features_CF = candidate_features(History.empty(), items, candidates, now_us)
    if not len(candidates):
        features_CF = np.zeros((_WARM_ROWS, len(CANDIDATE_FEATURES)), np.float32)
    for _ in range(_WARM_ROUNDS):
        scores_C = model.scores(features_CF)
        user_D = model.user_vector(History.empty(), np.zeros((0, model.dimension), np.float32), now_us)
    if not (np.isfinite(scores_C).all() and np.isfinite(user_D).all()):
        raise RefusedError("scores of the shop's own items are not finite")
