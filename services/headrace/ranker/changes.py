"""Which items' vectors were moved of late by events that were traced."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

_KEPT = 10_000


class Changes:
    """Traceparents of the newest traced change of each item."""

    def __init__(self) -> None:
        self._by_ordinal: OrderedDict[int, str] = OrderedDict()

    def note(self, traceparent: str, ordinals: Iterable[int]) -> None:
        for ordinal in ordinals:
            self._by_ordinal[ordinal] = traceparent
            self._by_ordinal.move_to_end(ordinal)
        while len(self._by_ordinal) > _KEPT:
            self._by_ordinal.popitem(last=False)

    def of(self, ordinals: Iterable[int]) -> list[str]:
        """What moved any of these, each once, in the order of the items."""
        found = (self._by_ordinal.get(ordinal, "") for ordinal in ordinals)
        return list(dict.fromkeys(trace for trace in found if trace))
