"""Closed training groups: the newest in memory, the rest in files `rows-<after>-<until>` of log offsets.

A file holds all groups closed at after < offset ≤ until. Files are written before the snapshot that ends at
`until`, so what a restart folds again it writes again, the same; files beyond the snapshot are removed at the start.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.feature_store.column_file import read_columns, write_columns
from headrace.feature_store.row_columns import RowColumns
from headrace.feature_store.training_rows import ClosedGroup
from headrace.runtime.errors import CorruptDataError

log = logging.getLogger(__name__)

# whether a group of this person, closed at this offset, is to go
IsGone = Callable[[str, int], bool]

_NAME = re.compile(r"rows-(\d{20})-(\d{20})")


@dataclass(frozen=True, slots=True)
class Cut:
    """Groups that are being written to a file."""

    after: int
    until: int
    groups: Sequence[ClosedGroup]


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    after: int
    until: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the groups of a range are: files first, then those in memory."""

    after: int
    until: int
    paths: Sequence[Path]
    groups: Sequence[ClosedGroup]

    def read(self) -> Iterator[RowColumns]:
        """The groups, a file at a time. A file that was removed meanwhile, or is corrupt, is left out."""
        for path in self.paths:
            try:
                yield RowColumns.restored(read_columns(path)).between(self.after, self.until)
            except FileNotFoundError:
                log.warning("rows_removed", extra={"file": path.name})
            except CorruptDataError as error:
                log.error("rows_corrupt", extra={"file": path.name, "reason": str(error)})
        if self.groups:
            yield RowColumns.of(self.groups)


def without(path: Path, is_gone: IsGone) -> int:
    """Writes a file anew without the groups of people, when it has any; how many it had. On any thread.

    A file that is gone or corrupt holds none that anybody will read.
    """
    try:
        columns = RowColumns.restored(read_columns(path))
    except FileNotFoundError:
        return 0
    except CorruptDataError as error:
        log.error("rows_corrupt", extra={"file": path.name, "reason": str(error)})
        path.unlink(missing_ok=True)
        return 0
    offsets = columns.group_offsets.tolist()
    gone = [at for at, user_key in enumerate(columns.user_keys) if is_gone(user_key, offsets[at])]
    if gone:
        write_columns(path, columns.without(gone).columns())
    return len(gone)


class RowStore:
    """Groups in the order in which they were closed; at most about `limit_bytes` of them on disk.

    Used from one thread, but for `write` and `Reading.read`.
    """

    def __init__(self, folder: Path, limit_bytes: int, offset: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._flushed = offset
        self._writing: list[Cut] = []
        self._pending: list[ClosedGroup] = []
        self.pending_bytes = 0
        self._files = self._known_files(offset)

    def _known_files(self, offset: int) -> list[_File]:
        files = []
        for path in sorted(self._folder.glob("rows-*")):
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            after, until = map(int, match.groups())
            if until > offset:
                path.unlink()
            else:
                files.append(_File(path, after, until, path.stat().st_size))
        return files

    def add(self, groups: Sequence[ClosedGroup]) -> None:
        self._pending += groups
        self.pending_bytes += sum(group.nbytes for group in groups)

    def cut(self, until: int) -> Cut | None:
        """Takes all groups closed up to `until`, the folded offset, to be written; None when there are none."""
        if not self._pending:
            return None
        cut = Cut(self._flushed, until, self._pending)
        self._writing.append(cut)
        self._flushed, self._pending, self.pending_bytes = until, [], 0
        return cut

    def write(self, cut: Cut) -> int:
        """Writes a file; on any thread. Its size in bytes."""
        return write_columns(self._path(cut), RowColumns.of(cut.groups).columns())

    def written(self, cut: Cut, size_bytes: int) -> None:
        """Notes that a cut is durable, and removes the oldest files beyond the limit."""
        self._writing.remove(cut)
        self._files.append(_File(self._path(cut), cut.after, cut.until, size_bytes))
        self._files.sort(key=lambda file: file.after)
        while len(self._files) > 1 and sum(file.size_bytes for file in self._files) > self._limit_bytes:
            self._files.pop(0).path.unlink(missing_ok=True)

    def erase(self, is_gone: IsGone) -> int:
        """Drops the groups of people from memory; how many. Nothing may be on its way to a file."""
        kept = [group for group in self._pending if not is_gone(group.user_key, group.offset)]
        gone = len(self._pending) - len(kept)
        self._pending, self.pending_bytes = kept, sum(group.nbytes for group in kept)
        return gone

    def paths(self) -> list[Path]:
        """The files, to be written without some people by `without`."""
        return [file.path for file in self._files]

    def _path(self, cut: Cut) -> Path:
        return self._folder / f"rows-{cut.after:020d}-{cut.until:020d}"

    @property
    def begin(self) -> int:
        """The offset after which groups are kept."""
        return self._files[0].after if self._files else self._writing[0].after if self._writing else self._flushed

    def between(self, after: int, until: int) -> Reading:
        """Where the groups closed at after < offset ≤ until are now."""
        paths = [file.path for file in self._files if file.until > after and file.after < until]
        held = [*(group for cut in self._writing for group in cut.groups), *self._pending]
        return Reading(after, until, paths, [group for group in held if after < group.offset <= until])
