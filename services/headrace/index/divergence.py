"""Which replicas hold other vectors than this one, by their rolling hashes."""

from __future__ import annotations

import logging

from headrace.runtime.telemetry import counter

log = logging.getLogger(__name__)

_found = counter("headrace.index.divergences", "{space}", "spaces of a replica found to differ from this one's")


class Divergences:
    """What is known of the replicas now; each is told once, in the log and as a metric."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], int] = {}

    def of(self, space: str) -> list[tuple[str, int]]:
        """Peers that differ in a space, each with the first sequence at which it is known to."""
        return sorted((peer, sequence) for (name, peer), sequence in self._first.items() if name == space)

    def note(self, space: str, peer: str, sequence: int | None) -> None:
        """Notes what a comparison gave: the first sequence that differs, or None."""
        known = self._first.get((space, peer))
        if sequence is None:
            if self._first.pop((space, peer), None) is not None:
                log.info("replica_equal_again", extra={"space": space, "peer": peer})
        elif known is None:
            self._first[space, peer] = sequence
            _found.add(1)
            log.error("replica_diverged", extra={"space": space, "peer": peer, "sequence": sequence})

    def keep_only(self, spaces: set[str]) -> None:
        """Forgets what was known of spaces that are gone."""
        self._first = {place: sequence for place, sequence in self._first.items() if place[0] in spaces}
