"""Why vectors move to a new space, and which of the old spaces are still needed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

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


def lineage_of(space: str) -> str:
    """The lineage that a space belongs to: the delta log names spaces by lineage, birth and generation.

    >>> lineage_of("wide-towers-18c3a9f0e21-4")
    'wide-towers'
    """
    return space.rsplit("-", 2)[0]


def needless_spaces(spaces: Sequence[str], keep: int, needed: Collection[str]) -> list[str]:
    """Of a trainer's spaces, oldest first: those before the newest `keep`, but for what the plan needs.

    >>> needless_spaces(["a", "b", "c", "d"], keep=2, needed={"a"})
    ['b']
    """
    return [space for space in spaces[:-keep] if space not in needed]
