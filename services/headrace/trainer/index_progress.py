"""How far every replica of every shard of the index has come, and what follows from it for the delta log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# a replica that is away for longer is not waited for: it can catch up from another one
AWAY_S = 60.0


@dataclass
class ReplicaProgress:
    """One replica. `lost_in`: the space of which the delta log has folded rows that it lacks: only another can help."""

    address: str
    space: str = ""
    acknowledged: int = 0
    # fit to be answered by: the space is whole there
    is_fit: bool = False
    lost_in: str = ""
    spaces: frozenset[str] = frozenset()
    # None while it is reached
    away_since: float | None = field(default_factory=time.monotonic)

    @property
    def is_reached(self) -> bool:
        return self.away_since is None

    def note_reached(self, spaces: Mapping[str, int]) -> None:
        """It answers, and has these spaces."""
        self.away_since, self.spaces = None, frozenset(spaces)

    def note_away(self) -> None:
        """It does not answer."""
        if self.away_since is None:
            self.away_since = time.monotonic()

    def stands_at(self, space: str, acknowledged: int, *, is_fit: bool) -> None:
        """It goes on from here."""
        self.space, self.acknowledged, self.is_fit, self.lost_in = space, acknowledged, is_fit, ""

    def has_acknowledged(self, space: str) -> int:
        """The last sequence of a space that it is known to hold."""
        return self.acknowledged if self.space == space != self.lost_in else 0

    def is_waited_for(self, space: str) -> bool:
        """Whether rows of a space that it lacks are kept for it."""
        if self.lost_in == space:
            return False
        return self.away_since is None or time.monotonic() - self.away_since < AWAY_S


class IndexProgress:
    """All shards by number, each with its replicas."""

    def __init__(self, shards: Sequence[Sequence[ReplicaProgress]]) -> None:
        self.shards = shards

    @property
    def replicas(self) -> list[ReplicaProgress]:
        return [replica for shard in self.shards for replica in shard]

    def acknowledged(self, space: str) -> int:
        """Up to here every replica that is waited for holds the space, and at least one of every shard."""
        return min(_acknowledged(shard, space) for shard in self.shards)

    def has_filled(self, space: str) -> bool:
        """Whether all replicas that are reached hold what the space began with and are fit to answer by it."""
        return all(_has_filled(shard, space) for shard in self.shards)

    def is_lost(self, space: str) -> bool:
        """Whether rows of a space are nowhere any more: all replicas of some shard lack them, and so does the log."""
        return any(all(replica.lost_in == space for replica in shard) for shard in self.shards)

    def taken(self) -> set[str]:
        """Names of spaces that some replica has."""
        return {space for replica in self.replicas for space in replica.spaces}


def _acknowledged(shard: Sequence[ReplicaProgress], space: str) -> int:
    waited = [replica.has_acknowledged(space) for replica in shard if replica.is_waited_for(space)]
    return min(waited) if waited else max(replica.has_acknowledged(space) for replica in shard)


def _has_filled(shard: Sequence[ReplicaProgress], space: str) -> bool:
    reached = [replica for replica in shard if replica.is_reached and replica.lost_in != space]
    return bool(reached) and all(replica.is_fit and replica.space == space for replica in reached)
