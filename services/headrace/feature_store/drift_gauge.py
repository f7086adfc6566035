"""Measures the drift of a running store's training rows, and counts values that are no numbers."""

from __future__ import annotations

import asyncio

from headrace.feature_store.drift import Drift, Period, drift_of, not_finite, periods
from headrace.feature_store.fold import State
from headrace.feature_store.row_store import Cut, RowStore
from headrace.feature_store.state_owner import StateOwner
from headrace.runtime.telemetry import counter, histogram

# both have an attribute `feature`: one of CANDIDATE_FEATURES, so their number is bounded
_stability = histogram("headrace.feature_store.stability", "1", "population stability of a feature of training rows")
_not_finite = counter("headrace.feature_store.values.not_finite", "{value}", "values of training rows, not finite")


class DriftGauge:
    """Over the rows that a store keeps."""

    def __init__(self, owner: StateOwner, state: State, rows: RowStore) -> None:
        self._owner = owner
        self._state = state
        self._rows = rows

    async def watch(self, every_s: float) -> None:
        """Measures for ever, over the default periods."""
        while True:
            await asyncio.sleep(every_s)
            drift, _, _ = await self.measure(None, None)
            if drift.reference_rows and drift.recent_rows:
                for feature in drift.features:
                    _stability.record(feature.stability, {"feature": feature.feature})

    async def measure(self, reference: Period | None, recent: Period | None) -> tuple[Drift, Period, Period]:
        """How features have moved, and between which periods; None: the stated defaults."""
        begin, end = await self._owner.read(lambda: (self._rows.begin, self._state.offset))
        default_reference, default_recent = periods(begin, end)
        chosen = reference or default_reference, recent or default_recent
        readings = await self._owner.run(lambda: [self._rows.between(one.after, one.until) for one in chosen])
        return await asyncio.to_thread(drift_of, *readings), *chosen

    def note_written(self, cut: Cut) -> None:
        """Counts the values of groups that are kept now, each group once."""
        for group in cut.groups:
            for feature, count in not_finite(group.features).items():
                _not_finite.add(count, {"feature": feature})
