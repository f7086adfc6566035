"""Who was forgotten, and when: their old events and facts are refused at the door, however late they come again."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.ingest.limits import Violation, time_us
from headrace.ingest.rules import FORGOTTEN
from headrace.runtime.privacy import Privacy
from headrace.v1.common_pb2 import DatedFact, UserEvent

# before all times that a field can hold
_LONG_AGO_US, _NEVER_US = -(1 << 62), -(1 << 63)


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

    def fact_violations(self, fact: DatedFact, user_key: str) -> list[Violation]:
        """Against a fact about a person that is said to have begun before they were forgotten."""
        # one without a beginning has always been so
        from_us = time_us(fact.valid_from) if fact.HasField("valid_from") else _LONG_AGO_US
        if not self._is_forgotten(user_key, from_us):
            return []
        return [Violation(FORGOTTEN, "entity_id", "was forgotten after this fact's valid_from")]

    def blank(self, event: UserEvent, time_us: int) -> None:
        """Takes a forgotten device out of somebody else's event of the time before."""
        if event.user_id and event.visitor_id and self._is_forgotten("v:" + event.visitor_id, time_us):
            event.visitor_id = ""

    def _is_forgotten(self, user_key: str, time_us: int) -> bool:
        # most shops have forgotten nobody: nothing is hashed then
        return bool(self._until_us) and time_us <= self._until_us.get(self._privacy.digest(user_key), _NEVER_US)
