"""The state on disk with its log offset: a restart takes the newest whole one and folds the tail of the log.

A snapshot is a file, and the users' tier as it was at the file's offset. The tier is written first and the file is
what commits: a crash between the two leaves the older file, and the tier goes back to it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from headrace.feature_store.column_file import read_columns, write_columns
from headrace.feature_store.fold import State
from headrace.feature_store.in_process_tier import InProcessTier
from headrace.feature_store.rules import Rules
from headrace.feature_store.state_copy import StateCopy
from headrace.feature_store.user_tier import UserTier
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.atomic import sync_directory
from headrace.runtime.errors import CorruptDataError, UnavailableError
from headrace.runtime.telemetry import histogram

log = logging.getLogger(__name__)

_store_time = histogram(
    "headrace.feature_store.users.store.duration", "ms", "time to bring the users' tier to a snapshot"
)

_KEPT = 2
_TEXTS = ("fingerprint", "facts")
# what restoring says of columns that are sound as bytes, and of another build
_ANOTHER_FORM = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, StopIteration)


class Snapshots:
    """Files `state-<offset>` in a folder; the newest two are kept, and what the tier needs for them."""

    def __init__(self, folder: Path, tier: UserTier | None = None) -> None:
        self._folder = folder
        # there was a state, and it could not be used
        self.was_refused = False
        # an empty one is false
        self._tier = InProcessTier() if tier is None else tier

    def write(self, copy: StateCopy) -> None:
        """Durable when it returns; older ones than the last two go. UnavailableError: the tier can't be reached."""
        begun = time.perf_counter()
        copy.histories.store(copy.offset)
        _store_time.record((time.perf_counter() - begun) * 1e3)
        texts = {name: np.frombuffer(getattr(copy, name).encode(), np.uint8) for name in _TEXTS}
        write_columns(
            self._folder / f"state-{copy.offset:020d}", {**copy.columns, **texts, **copy.histories.tier.columns()}
        )
        for path in self._paths()[_KEPT:]:
            path.unlink(missing_ok=True)
        try:
            copy.histories.tier.keep_from(_offset(self._paths()[-1]))
        except UnavailableError as error:
            # what it could have dropped now it drops at the next snapshot
            log.warning("users_not_trimmed", extra={"reason": str(error)})

    def forget_all_but(self, offset: int) -> None:
        """Leaves one snapshot alone, which must be there: older ones hold people who were forgotten since."""
        for path in self._paths():
            if _offset(path) != offset:
                path.unlink(missing_ok=True)
        sync_directory(self._folder)
        self._tier.keep_from(offset)

    def newest(
        self, rules: Rules, views: Sequence[WindowedView] = (), is_wanted: Callable[[State], bool] = lambda state: True
    ) -> State:
        """The state of the newest snapshot that is whole, was folded by these rules and is wanted; else an empty one.

        It holds those of the declared `views` that the snapshot does. It takes the tier along: a second state beside
        one that goes on needs `Snapshots` (and a tier) of its own. UnavailableError: the tier can't be reached.
        """
        for path in self._paths():
            try:
                state = self._restored(path, rules, views)
            except (CorruptDataError, FileNotFoundError, LookupError, ValueError) as error:
                self.was_refused = True
                log.warning("snapshot_refused", extra={"snapshot": path.name, "reason": str(error)})
                continue
            if is_wanted(state):
                log.info("snapshot_restored", extra={"offset": state.offset})
                return state
        self._tier.restore(0, {})
        return State(rules, self._tier, views)

    def _restored(self, path: Path, rules: Rules, views: Sequence[WindowedView]) -> State:
        """ValueError when it was folded by other rules."""
        columns = dict(read_columns(path))
        fingerprint, facts = (columns.pop(name).tobytes().decode() for name in _TEXTS)
        if fingerprint != rules.fingerprint():
            raise ValueError(f"folded by rules {fingerprint[:12]}, these are {rules.fingerprint()[:12]}")
        self._tier.restore(_offset(path), columns)
        try:
            return State.restored(rules, columns, facts, self._tier, views)
        except _ANOTHER_FORM as error:
            raise CorruptDataError(f"not a state of this build's form: {error!r}") from error

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob("state-*"), reverse=True)


def _offset(path: Path) -> int:
    return int(path.name.removeprefix("state-"))
