"""Keeps this replica equal to the others of its shard: catches up where it is behind, and compares hashes.

A replica that only missed what the senders still hold gets that from them. What they have folded meanwhile is to be
had from a replica alone; so one that starts behind takes a copy before it serves, and one that stays behind while it
serves takes one too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from headrace.index.divergence import Divergences
from headrace.index.peers import Peer, PeerStanding
from headrace.index.rolling_hash import first_difference
from headrace.index.store import Store
from headrace.runtime.errors import HeadraceError, UnavailableError
from headrace.runtime.telemetry import counter

log = logging.getLogger(__name__)

_caught_up = counter("headrace.index.catch_ups", "{space}", "spaces copied from a replica")

_RETRY_S = 0.2
# so many looks in a row a space was behind a replica and did not move: its sender cannot help
_PATIENCE_LOOKS = 3

_Found = Sequence[tuple[Peer, PeerStanding]]


class Replication:
    """Looks after the spaces of `store` on behalf of the process `instance`."""

    def __init__(self, store: Store, peers: Sequence[Peer], instance: str, divergences: Divergences) -> None:
        self._store = store
        self._peers = peers
        self._instance = instance
        self._divergences = divergences
        self._stuck: dict[str, tuple[int, int]] = {}
        self._strangers: set[str] = set()

    async def catch_up(self, wait_s: float) -> None:
        """Takes over what replicas hold beyond this one, and their active space; without any, what is here stays.

        Waits up to `wait_s` for the first replica that answers.
        """
        if not self._peers:
            return
        found = await self._answering(wait_s)
        if not found:
            log.warning("no_replica_reached", extra={"peers": self._addresses, "waited_s": wait_s})
            return
        for space in sorted({name for _, standing in found for name in standing.spaces}):
            await self._copy_if_behind(space, found)
        await self._take_active(found)

    async def run(self, every_s: float) -> None:
        """Compares for ever."""
        while True:
            await asyncio.sleep(every_s)
            found = await self._standings()
            self._compare(found)
            for space in self._stuck_spaces(found):
                await self._copy_if_behind(space, found)

    @property
    def _addresses(self) -> str:
        return ",".join(peer.address for peer in self._peers)

    async def _answering(self, wait_s: float) -> _Found:
        end = time.monotonic() + wait_s
        while True:
            found = await self._standings()
            if found or time.monotonic() >= end:
                return found
            await asyncio.sleep(_RETRY_S)

    async def _standings(self) -> _Found:
        """The replicas that answer; not those of other shards, nor this process itself."""
        asked = await asyncio.gather(*(_standing(peer) for peer in self._peers))
        return [
            (peer, standing)
            for peer, standing in zip(self._peers, asked, strict=True)
            if standing is not None and standing.instance != self._instance and self._is_of_shard(peer, standing)
        ]

    def _is_of_shard(self, peer: Peer, standing: PeerStanding) -> bool:
        if standing.shard == self._store.shard:
            return True
        if peer.address not in self._strangers:
            facts = {"peer": peer.address, "is": str(standing.shard), "should_be": str(self._store.shard)}
            log.error("peer_is_another_shard", extra=facts)
        self._strangers.add(peer.address)
        return False

    async def _copy_if_behind(self, space: str, found: _Found) -> None:
        """Copies a space from the replica that is furthest, or else from the next."""
        for peer, standing in sorted(found, key=lambda one: -_reached(one[1], space)):
            if _reached(standing, space) <= self._reached(space):
                return
            try:
                await self._copy(space, peer)
                return
            except HeadraceError as error:
                log.error("catch_up_failed", extra={"space": space, "peer": peer.address, "reason": str(error)})

    async def _copy(self, space: str, peer: Peer) -> None:
        before, begun = self._reached(space), time.perf_counter()
        copied = await peer.copy(space, self._store.shard, self._store.make_segment)
        rows, after = len(copied.segment), copied.applied_sequence
        if await self._store.adopt(copied):
            _caught_up.add(1)
            facts = {"space": space, "peer": peer.address, "from_sequence": before, "to_sequence": after, "rows": rows}
            log.info("caught_up", extra=facts | {"seconds": round(time.perf_counter() - begun, 3)})

    async def _take_active(self, found: _Found) -> None:
        known = {space.name for space in self._store.spaces}
        active = next((standing.active for _, standing in found if standing.active in known), "")
        if active:
            await self._store.activate(active)

    def _compare(self, found: _Found) -> None:
        for space in self._store.spaces:
            for peer, standing in found:
                if space.name in standing.spaces:
                    theirs = standing.spaces[space.name].marks
                    self._divergences.note(space.name, peer.address, first_difference(space.rolling_hash.marks, theirs))
        self._divergences.keep_only({space.name for space in self._store.spaces})

    def _stuck_spaces(self, found: _Found) -> list[str]:
        """Spaces that were behind at several looks and did not move."""
        looks: dict[str, tuple[int, int]] = {}
        # a space that others still have may just have been dropped here, so only what they answer by is missed
        known = {space.name for space in self._store.spaces} | {standing.active for _, standing in found} - {""}
        for space in known:
            reached, (before, seen) = self._reached(space), self._stuck.get(space, (-1, 0))
            if reached < max((_reached(standing, space) for _, standing in found), default=0):
                looks[space] = (reached, seen + 1 if reached == before else 1)
        self._stuck = looks
        return [space for space, (_, seen) in looks.items() if seen >= _PATIENCE_LOOKS]

    def _reached(self, space: str) -> int:
        return next((one.applied_sequence for one in self._store.spaces if one.name == space), 0)


def _reached(standing: PeerStanding, space: str) -> int:
    return standing.spaces[space].sequence if space in standing.spaces else 0


async def _standing(peer: Peer) -> PeerStanding | None:
    try:
        return await peer.standing()
    except UnavailableError:
        return None
