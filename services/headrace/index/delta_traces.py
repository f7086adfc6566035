"""Which items the newest traced batches moved, so that whoever follows a space can say what led to a change."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_KEPT = 256


@dataclass(frozen=True)
class TracedBatch:
    """A batch that a traced event led to: up to which sequence it went, and what it moved."""

    space: str
    last_sequence: int
    traceparent: str
    ordinals: bytes


class DeltaTraces:
    """The newest traced batches of all spaces."""

    def __init__(self) -> None:
        self._newest: deque[TracedBatch] = deque(maxlen=_KEPT)

    def note(self, batch: TracedBatch) -> None:
        """To be called before anybody can see the batch."""
        if batch.traceparent:
            self._newest.append(batch)

    def between(self, space: str, after: int, until: int) -> Sequence[TracedBatch]:
        """Those of a space whose end lies behind `after`, and not behind `until`."""
        return [one for one in self._newest if one.space == space and after < one.last_sequence <= until]
