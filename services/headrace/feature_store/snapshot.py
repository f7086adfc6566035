"""The state on disk with its log offset: a restart takes the newest whole one and folds the tail of the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from headrace.feature_store.column_file import read_columns, write_columns
from headrace.feature_store.fold import State, StateCopy
from headrace.feature_store.rules import Rules
from headrace.feature_store.windowed_view import WindowedView
from headrace.runtime.errors import CorruptDataError

log = logging.getLogger(__name__)

_KEPT = 2
_TEXTS = ("fingerprint", "facts")


class Snapshots:
    """Files `state-<offset>` in a folder; the newest two are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, copy: StateCopy) -> None:
        """Durable when it returns; older ones than the last two go."""
        texts = {name: np.frombuffer(getattr(copy, name).encode(), np.uint8) for name in _TEXTS}
        write_columns(self._folder / f"state-{copy.offset:020d}", {**copy.columns, **texts})
        for path in self._paths()[_KEPT:]:
            path.unlink(missing_ok=True)

    def newest(
        self, rules: Rules, views: Sequence[WindowedView] = (), is_wanted: Callable[[State], bool] = lambda state: True
    ) -> State:
        """The state of the newest snapshot that is whole, was folded by these rules and is wanted; else an empty one.

        It holds those of the declared `views` that the snapshot does.
        """
        for path in self._paths():
            try:
                state = State.restored(rules, _copy(path), views)
            except (CorruptDataError, FileNotFoundError, ValueError) as error:
                log.warning("snapshot_refused", extra={"snapshot": path.name, "reason": str(error)})
                continue
            if is_wanted(state):
                log.info("snapshot_restored", extra={"offset": state.offset})
                return state
        return State(rules, views)

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob("state-*"), reverse=True)


def _copy(path: Path) -> StateCopy:
    columns = dict(read_columns(path))
    fingerprint, facts = (columns.pop(name).tobytes().decode() for name in _TEXTS)
    return StateCopy(int(path.name.removeprefix("state-")), fingerprint, columns, facts)
