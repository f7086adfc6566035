"""Who was forgotten, and when: their old events are refused at the door, however late they are sent again."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.ingest.limits import Violation
from headrace.runtime.privacy import Privacy
from headrace.v1.common_pb2 import UserEvent

FORGOTTEN = "forgotten"


class Forgotten:
    """The ledger as this process knows it: digests of user keys, each with the moment of its erasure."""

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._until_us: dict[bytes, int] = {}

    @property
    def anybody(self) -> bool:
        """Whether there is anybody: most shops have forgotten nobody."""
        return bool(self._until_us)

    def learn(self, until_us: Mapping[bytes, int]) -> frozenset[bytes]:
        """Takes in the ledger; those that are new in it, or erased again."""
        new = frozenset(digest for digest, at_us in until_us.items() if self._until_us.get(digest) != at_us)
        self._until_us.update(until_us)
        return new

    def violations(self, event: UserEvent, user_key: str, time_us: int) -> list[Violation]:
        """Against an event of a person who was forgotten after it; what comes later is a new person's."""
        if not self._is_forgotten(user_key, time_us):
            return []
        field = "user_id" if event.user_id else "visitor_id"
        return [Violation(FORGOTTEN, field, "was forgotten after the time of this event")]

    def blank(self, event: UserEvent, time_us: int) -> None:
        """Takes a forgotten device out of somebody else's event of the time before."""
        if event.user_id and event.visitor_id and self._is_forgotten("v:" + event.visitor_id, time_us):
            event.visitor_id = ""

    def _is_forgotten(self, user_key: str, time_us: int) -> bool:
        return time_us <= self._until_us.get(self._privacy.digest(user_key), -1)
