"""Why vectors move to a new space, and which of the old spaces are still needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from headrace.runtime.telemetry import counter

log = logging.getLogger(__name__)

_rotations = counter("headrace.trainer.rotations", "{space}", "spaces begun after the first, by reason")

# why a space was begun
ASKED, INCOMPARABLE, OTHER_FORM, LOST = "asked for", "not comparable", "another form", "lost by the index"
DRIFTED = "drift upon drift"


def note_rotation(space: str, reason: str) -> None:
    """Says that a space was begun."""
    _rotations.add(1, {"reason": reason})
    log.info("space_begun", extra={"space": space, "reason": reason})


def needless_spaces(spaces: Sequence[str], keep: int, served: str) -> list[str]:
    """Of a trainer's spaces, oldest first: those before the newest `keep`, but for the one that is served.

    >>> needless_spaces(["a", "b", "c", "d"], keep=2, served="a")
    ['b']
    """
    return [space for space in spaces[:-keep] if space != served]
