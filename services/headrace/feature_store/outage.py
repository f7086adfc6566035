"""Says once that something that is needed is away, and once that it is back."""

from __future__ import annotations

import logging

from headrace.runtime.errors import UnavailableError

log = logging.getLogger(__name__)


class Outage:
    """What some work needs; the work tells how each try went."""

    def __init__(self, work: str) -> None:
        self._work = work
        self._lasts = False

    def begin(self, error: UnavailableError) -> None:
        if not self._lasts:
            log.warning("waiting", extra={"work": self._work, "reason": str(error)})
        self._lasts = True

    def end(self) -> None:
        if self._lasts:
            log.info("going_on", extra={"work": self._work})
        self._lasts = False
