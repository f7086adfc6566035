"""ADER's protocol (Mi et al., RecSys 2020): click sessions in periods; update on one, be tested on the next.

Of every twenty sessions one is never learned from, by no method: what those recall tells what was forgotten of a
period, as tests of old tasks do in continual learning. (ADER keeps a tenth of what it learns from as validation.)

Test sessions lose the clicks on items that no earlier period has, and are dropped when one click is left; every
click from the second on is a target, what came before it (at most 50 clicks) is the input, and all items seen so
far are ranked. The files keep the order of clicks, not their times: times here are even within a period.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from headrace.model.events import EventCode
from headrace.trainer.records import Events, Slice
from headrace.trainer.sequences import Grown, Windows, windows_of

LAST_TUNING = 5
_DAY_US = 86_400_000_000
_START_US = 1_451_865_600_000_000
# days of period 0 and of every later one; a session is one visit, so its clicks lie seconds apart
_DAYS = {"diginetica": (21, 7), "yoochoose": (1, 1)}
_WEB = 1
# every so many sessions, one is held out
_HELD_OUT_EVERY = 20


@dataclass(frozen=True)
class Period:
    """One period's clicks in their order; `sessions` number them from 0 by first click."""

    number: int
    items: NDArray[np.uint32]
    sessions: NDArray[np.int64]
    times_us: NDArray[np.int64]

    @property
    def are_held_out(self) -> NDArray[np.bool_]:
        """Of clicks: whether they are never learned from."""
        return np.asarray(self.sessions % _HELD_OUT_EVERY == 0)

    def slices(self, count: int) -> list[Slice]:
        """The clicks to learn from, in `count` parts."""
        return [self._slice(part) for part in np.array_split(self._learned(), count) if len(part)]

    def split(self, share: float) -> tuple[Slice, Slice]:
        """The first clicks to learn from, that share of them, and the rest."""
        learned = self._learned()
        head, tail = np.split(learned, [round(share * len(learned))])
        return self._slice(head), self._slice(tail)

    def _learned(self) -> NDArray[np.intp]:
        return np.flatnonzero(~self.are_held_out)

    def _slice(self, part: NDArray[np.intp]) -> Slice:
        known, users = np.unique(self.sessions[part], return_inverse=True)
        size = len(part)
        events = Events(
            users,
            self.items[part],
            np.full(size, EventCode.VIEW, np.uint8),
            self.times_us[part],
            np.full(size, _WEB, np.uint8),
            tuple(f"v:{self.number}-{session}" for session in known),
            ("",) * size,
        )
        return Slice(0, size, events)


@dataclass(frozen=True)
class Ader:
    """All periods of one data set; items are ordinals, numbered by first appearance."""

    name: str
    periods: list[Period]

    @classmethod
    def read(cls, name: str, folder: Path) -> Ader:
        """`name` is diginetica or yoochoose; `folder` holds its file."""
        clicks = pl.read_parquet(folder / f"{name}.parquet")
        first_days, days = _DAYS[name]
        periods = []
        for number in range(int(clicks["period"].max()) + 1):  # type: ignore[arg-type]
            part = clicks.filter(pl.col("period") == number)
            begin = 0 if number == 0 else first_days + (number - 1) * days
            length_us = (first_days if number == 0 else days) * _DAY_US
            periods.append(_period(number, part, _START_US + begin * _DAY_US, length_us))
        return cls(name, periods)

    def known_before(self, number: int) -> int:
        """How many items were seen before a period."""
        return 1 + max(int(period.items.max()) for period in self.periods[:number])

    def test_windows(self, number: int, held_out: bool | None = None) -> tuple[Windows, int]:
        """The sessions to be predicted in a period, and how many items are ranked.

        `held_out`: only those that are held out, or only the others.
        """
        known, period = self.known_before(number), self.periods[number]
        kept = period.items < known
        if held_out is not None:
            kept &= period.are_held_out == held_out
        order = np.argsort(period.sessions[kept], kind="stable")
        items, sessions, times = (column[kept][order] for column in (period.items, period.sessions, period.times_us))
        bounds = np.flatnonzero(np.diff(sessions)) + 1
        parts = zip(np.split(items, bounds), np.split(times, bounds), strict=True)
        people = [_session(items, times) for items, times in parts if len(items) > 1]
        return windows_of(people, 50), known


def _period(number: int, clicks: pl.DataFrame, begin_us: int, length_us: int) -> Period:
    items = clicks["item"].to_numpy().astype(np.int64) - 1
    _, first, sessions = np.unique(clicks["session"].to_numpy(), return_index=True, return_inverse=True)
    starts_us = begin_us + first.astype(np.int64) * length_us // len(items)
    places = _places_within(sessions)
    # a click a minute: far enough apart to be in order, near enough to be one visit
    times_us = starts_us[sessions] + places * 60_000_000
    return Period(number, items.astype(np.uint32), sessions.astype(np.int64), times_us)


def _places_within(sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(sessions, kind="stable")
    ranked = sessions[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    places = np.empty(len(sessions), np.int64)
    places[order] = np.arange(len(sessions)) - np.repeat(starts, np.diff(np.append(starts, len(sessions))))
    return places


def _session(items: NDArray[np.uint32], times_us: NDArray[np.int64]) -> Grown:
    size = len(items)
    views, web = np.full(size, EventCode.VIEW, np.uint8), np.full(size, _WEB, np.uint8)
    return Grown(old=0, ordinals=items, event_types=views, times_us=times_us, channels=web)
