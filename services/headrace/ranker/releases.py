"""The releases that this process holds: the one it answers with, the shadow beside it, and the last good ones.

Each is loaded whole and passes gate 0 before anyone is answered by it, and is swapped in at once. What fails is
refused and named; what was served stays. One that served before is kept in memory, so that an undo takes no loading.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from headrace.model.arms import CANARY, STABLE
from headrace.ranker.feeds import VectorFeed
from headrace.ranker.following import followed
from headrace.ranker.gate_zero import RefusedError
from headrace.ranker.loading import ReleaseLoader
from headrace.ranker.plan import HeldPlan, ReleaseManifest, ServingPlan
from headrace.ranker.served import Served
from headrace.ranker.spaces import Spaces
from headrace.runtime.errors import HeadraceError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last release that was not taken, and why."""

    release: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the plan wants of one track."""

    served: ReleaseManifest | None = None
    shadow: ReleaseManifest | None = None

    @classmethod
    def of(cls, plan: ServingPlan, track: str) -> Wanted:
        served = plan.of(track)
        is_shadowed = track != CANARY and plan.shadow != served
        return cls(served, plan.shadow if is_shadowed else None)

    def manifests(self) -> list[ReleaseManifest]:
        return [each for each in (self.served, self.shadow) if each is not None]


class Releases:
    """Follows the plans of one track; `current` is the release to answer with, None before the first.

    A request reads `current` once and keeps to it, so a swap falls between requests. `keep_loaded` releases that
    served before stay in memory, with the vectors of their spaces.
    """

    def __init__(
        self,
        watch_plan: Callable[[], AsyncIterator[ServingPlan]],
        plan: HeldPlan,
        loader: ReleaseLoader,
        open_feed: Callable[[str], VectorFeed],
        *,
        retry_s: float,
        track: str = STABLE,
        keep_loaded: int = 1,
    ) -> None:
        self.current: Served | None = None
        self.shadow: Served | None = None
        # not taken so far, be it only late; and the last one that did not pass gate 0, which is not tried again
        self.refused = Refusal()
        self.failed = Refusal()
        self._watch_plan = watch_plan
        self._plan = plan
        self._loader = loader
        self._open_feed = open_feed
        self._retry_s = retry_s
        self._track = track
        self._wanted = Wanted()
        self._changed = asyncio.Event()
        self._held: dict[ReleaseManifest, Served] = {}
        self._served_before: deque[ReleaseManifest] = deque(maxlen=keep_loaded)
        self._never: dict[ReleaseManifest, str] = {}

    def want(self, plan: ServingPlan) -> None:
        """Notes what a plan wants of this track, unless a later one is known: the numbers only grow."""
        if not self._plan.take(plan):
            return
        wanted = Wanted.of(plan, self._track)
        if wanted != self._wanted:
            self._wanted = wanted
            self._changed.set()

    @property
    def missing(self) -> str:
        """Why there is nothing to answer with; empty when there is, or when the plan has nothing for this track."""
        if self._plan.newest is None:
            return "no serving plan came"
        wanted = self._wanted.served
        if wanted is None or self.current is not None:
            return ""
        return f"release {wanted.release}: {self.refused.reason or 'not loaded yet'}"

    async def run(self) -> None:
        """Follows the plan for ever; a feed that dies takes this down with it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_plan())
            spaces = Spaces(self._open_feed, group)
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._settle_until_changed(spaces)

    async def _follow_plan(self) -> None:
        async for plan in followed("serving plan", self._watch_plan, self._retry_s):
            self.want(plan)

    async def _settle_until_changed(self, spaces: Spaces) -> None:
        """A newer plan breaks off what an older one wanted: an undo does not wait until a release is loaded."""
        settling = asyncio.ensure_future(self._settle(spaces))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((settling, changed), return_when=asyncio.FIRST_COMPLETED)
            if settling.done():
                settling.result()
        finally:
            settling.cancel()
            changed.cancel()

    async def _settle(self, spaces: Spaces) -> None:
        """Holds what is wanted, trying again what is not ready."""
        while True:
            is_served, is_shadowed = await self._serve(spaces), await self._hold_shadow(spaces)
            self._let_go(spaces)
            if is_served and is_shadowed:
                return
            await asyncio.sleep(self._retry_s)

    async def _serve(self, spaces: Spaces) -> bool:
        """Whether no more can be done for the wanted release."""
        manifest = self._wanted.served
        if manifest is None:
            if self._track == CANARY:
                # of a plan without a canary nobody is to be answered by the last one
                self._swap(None)
            return True
        if self._is_current(manifest):
            return True
        held, is_settled = await self._taken(manifest, spaces)
        if held is not None:
            self._swap(held)
            log.info("release_swapped", extra={"release": manifest.release, "space": manifest.space})
        return is_settled

    async def _hold_shadow(self, spaces: Spaces) -> bool:
        manifest = self._wanted.shadow
        held = self._held.get(manifest) if manifest is not None else None
        if self.shadow is not held:
            self.shadow = None
        if manifest is None or self.shadow is not None:
            return True
        self.shadow, is_settled = await self._taken(manifest, spaces)
        return is_settled

    def _is_current(self, manifest: ReleaseManifest) -> bool:
        return self.current is not None and self._held.get(manifest) is self.current

    def _swap(self, served: Served | None) -> None:
        for manifest, held in self._held.items():
            if held is self.current and held is not served and manifest not in self._served_before:
                self._served_before.append(manifest)
        self.current = served

    async def _taken(self, manifest: ReleaseManifest, spaces: Spaces) -> tuple[Served | None, bool]:
        """The release if it can be had, and whether that is settled."""
        try:
            held = await self._loaded(manifest, spaces)
        except RefusedError as error:
            self._never[manifest] = str(error)
            self._refuse(manifest, str(error))
            self.failed = self.refused
            return None, True
        except HeadraceError as error:
            self._refuse(manifest, str(error))
            return None, False
        if self.refused.release == manifest.release:
            # it was only late
            self.refused = Refusal()
        return held, True

    async def _loaded(self, manifest: ReleaseManifest, spaces: Spaces) -> Served:
        if manifest in self._never:
            raise RefusedError(self._never[manifest])
        feed, held = spaces.feed(manifest.space), self._held.get(manifest)
        if held is None:
            self._held[manifest] = held = await self._loader.load(manifest, feed, self.current)
        else:
            await self._loader.await_vectors(manifest, feed)
        return held

    def _refuse(self, manifest: ReleaseManifest, reason: str) -> None:
        refusal = Refusal(manifest.release, reason)
        if refusal != self.refused:
            log.error("release_refused", extra={"release": manifest.release, "reason": reason})
        self.refused = refusal

    def _let_go(self, spaces: Spaces) -> None:
        """Keeps what serves, what is wanted, and the last ones that served."""
        wanted = self._wanted.manifests()
        kept = {*wanted, *self._served_before}
        self._held = {
            manifest: held for manifest, held in self._held.items() if manifest in kept or held is self.current
        }
        self._loader.forget_all_but(wanted)
        spaces.keep_only({manifest.space for manifest in (*self._held, *wanted)})
