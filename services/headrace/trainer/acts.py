"""What is done to the learner, one act after the other. Rank 0 tells each to the other processes before it begins."""

from __future__ import annotations

from dataclasses import dataclass

# kinds of journal entries
PRODUCTS, EVENTS, DRIFT, RECONCILE, ROTATE = "products", "events", "drift", "reconcile", "rotate"
ERASE = "erase"
# never journalled: bring back a checkpoint, go on waiting, end
LOAD, BEAT, STOP = "load", "beat", "stop"
KINDS = (PRODUCTS, EVENTS, DRIFT, RECONCILE, ROTATE, LOAD, BEAT, STOP, ERASE)
NO_CHECKPOINT = -1


@dataclass(frozen=True, slots=True)
class Act:
    """An act over the records with `after` < offset <= `until`."""

    kind: str
    after: int = 0
    until: int = 0
    # its number in the journal; of LOAD that of the checkpoint, or NO_CHECKPOINT to begin from nothing
    entry: int = 0
