"""One decider among several processes: whoever holds the lease, until it is silent for too long.

A process that lost it without knowing does no harm: every step of a rollout is compared and swapped besides.
"""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from headrace.runtime.clock import now_us
from headrace.runtime.database import hold
from headrace.trainer.tables import LeaseRow

_DECIDER = "decider"


class Lease:
    """The right to decide, asked for by `holder`, for `lasts_s` at a time."""

    def __init__(self, engine: Engine, holder: str, lasts_s: float) -> None:
        self._engine = engine
        self._holder = holder
        self._lasts_us = int(lasts_s * 1e6)

    def is_mine(self) -> bool:
        """Takes the lease when it is free, and keeps it a while longer when it is held already."""
        with Session(self._engine) as session, session.begin():
            hold(session.connection(), "lease")
            now, row = now_us(), session.get(LeaseRow, _DECIDER)
            if row is None:
                session.add(LeaseRow(name=_DECIDER, holder=self._holder, until_us=now + self._lasts_us))
                return True
            if row.holder != self._holder and row.until_us > now:
                return False
            # half a lease is enough to write seldom and never to lose it by that
            if row.holder != self._holder or row.until_us - now < self._lasts_us / 2:
                row.holder, row.until_us = self._holder, now + self._lasts_us
            return True

    def give_up(self) -> None:
        """Lets another process decide at once."""
        with Session(self._engine) as session, session.begin():
            hold(session.connection(), "lease")
            row = session.get(LeaseRow, _DECIDER)
            if row is not None and row.holder == self._holder:
                row.until_us = 0
