"""A file as batches of messages, with what became of every row: mapped, skipped or rejected."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from headrace.datasets.importing.files import BATCH_ROWS, Row, Unreadable, columns_of, read_batches
from headrace.datasets.importing.grouping import Groups
from headrace.datasets.importing.mapper import Mapper, RejectedRowError
from headrace.datasets.importing.mapping import MappingFile
from headrace.datasets.importing.targets import Message
from headrace.datasets.importing.values import UnmappedError
from headrace.runtime.errors import Fault, InvalidRequestError
from headrace.v1.common_pb2 import UserEvent


@dataclass(frozen=True, slots=True)
class Mapped:
    """A message and the rows that it is made of."""

    message: Message
    rows: list[int]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that is in no message: its cells, or its text where it has none, and every reason."""

    row: int
    content: Any
    reasons: list[str]


@dataclass
class Batch:
    """What came of some rows. `settled_row`: every row before it is in this batch or an earlier one."""

    mapped: list[Mapped] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    rows: int = 0
    skipped: int = 0
    share: float = 0.0
    settled_row: int = 1


def import_batches(path: Path, mapping: MappingFile, size: int = BATCH_ROWS) -> Iterator[Batch]:
    """The messages of a file. InvalidRequestError when the file does not fit the mapping, or breaks off."""
    check_columns(path, mapping)
    work = _Work(mapping, path.parent)
    last = Batch()
    for read in read_batches(path, mapping.file, size):
        last = Batch(rows=len(read.rows), share=read.share)
        for row in read.rows:
            work.take(row, last)
        last.settled_row = work.settled_row(read.rows[-1].number)
        yield last
    end = Batch(share=1.0, settled_row=last.settled_row)
    work.finish(end)
    yield end


def check_columns(path: Path, mapping: MappingFile) -> None:
    """Raises InvalidRequestError with every column that the mapping names and the file lacks."""
    columns = columns_of(path, mapping.file)
    if columns is None:
        return
    there = ", ".join(columns[:50])
    missing = [
        Fault(key, f"names the column {column!r}, which {path.name} lacks; there: {there}")
        for column, key in mapping.named_columns().items()
        if column not in columns
    ]
    if missing:
        raise InvalidRequestError(missing)


class _Work:
    """Takes row by row into batches."""

    def __init__(self, mapping: MappingFile, folder: Path) -> None:
        self._mapper = Mapper(mapping, folder)
        self._groups = Groups(mapping.group) if mapping.group else None
        self._repeats = _Repeats() if mapping.number_repeats else None

    def take(self, row: Row | Unreadable, batch: Batch) -> None:
        if isinstance(row, Unreadable):
            batch.rejects.append(Reject(row.number, row.text, [row.reason]))
            return
        if self._mapper.is_skipped(row.cells):
            batch.skipped += 1
            return
        try:
            self._map(row, batch)
        except RejectedRowError as error:
            batch.rejects.append(Reject(row.number, row.cells, error.reasons))
        except UnmappedError as error:
            batch.rejects.append(Reject(row.number, row.cells, [f"group: {error}"]))

    def _map(self, row: Row, batch: Batch) -> None:
        message = self._mapper.message(row.cells)
        if self._groups is None:
            batch.mapped.append(Mapped(self._named(message), [row.number]))
            return
        for grouped in self._groups.complete(row.number):
            batch.mapped.append(Mapped(self._named(grouped.event), grouped.rows))
        self._groups.add(row.number, row.cells, cast("UserEvent", message))

    def finish(self, batch: Batch) -> None:
        if self._groups is not None:
            batch.mapped += [Mapped(self._named(grouped.event), grouped.rows) for grouped in self._groups.rest()]

    def settled_row(self, last: int) -> int:
        waiting = self._groups.first_open_row() if self._groups else None
        return last + 1 if waiting is None else waiting

    def _named(self, message: Message) -> Message:
        if self._repeats is not None and isinstance(message, UserEvent):
            self._repeats.name(message)
        return message


class _Repeats:
    """Gives the second and every later event of one content an id of its own; 16 bytes are kept an event."""

    def __init__(self) -> None:
        self._times: dict[bytes, int] = {}

    def name(self, event: UserEvent) -> None:
        """Ids follow from content and count, so that the same file gives the same ones. The first keeps the door's."""
        content = hashlib.sha256(event.SerializeToString(deterministic=True))
        times = self._times[content.digest()[:16]] = self._times.get(content.digest()[:16], 0) + 1
        if times > 1:
            event.event_id = f"{content.hexdigest()[:32]}-{times}"
