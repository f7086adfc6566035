"""Sends files through the door by a mapping, and accounts for every row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from google.protobuf.json_format import MessageToDict

from headrace.cli.replay import Pace
from headrace.cli.sending import Sender
from headrace.datasets.feed import Chunk
from headrace.datasets.importing.importing import Batch, Mapped, import_batches
from headrace.datasets.importing.mapping import MappingFile
from headrace.datasets.times import at
from headrace.runtime.errors import InvalidRequestError
from headrace.v1.common_pb2 import DatedFact, Product, UserEvent
from headrace.v1.ingest_pb2 import WriteResult

# batches after which it is made sure that all before is durable, so that one can go on there
_SETTLE_EVERY = 25
_EXAMPLES = 2


@dataclass
class Imported:
    """What became of the rows, and of the messages made of them. `passed_over`: before the row to begin at."""

    rows: int = 0
    skipped: int = 0
    rejected_rows: int = 0
    passed_over: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def note(self, results: Sequence[WriteResult]) -> None:
        for result in results:
            if result.outcome == WriteResult.OUTCOME_ACCEPTED:
                self.accepted += 1
            elif result.outcome == WriteResult.OUTCOME_DUPLICATE:
                self.duplicates += 1
            else:
                self.refused[result.reason] += 1


class Rejects:
    """A file of JSON lines, made when the first row comes: file, rows, what stood there, every reason.

    `goes_on`: what an earlier run wrote stays.
    """

    def __init__(self, path: Path, goes_on: bool) -> None:
        self.path = path
        self._mode = "a" if goes_on else "w"
        self._file: IO[str] | None = None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    @property
    def is_there(self) -> bool:
        """Whether any row was written."""
        return self._file is not None

    def write(self, file: Path, rows: Sequence[int], content: object, reasons: Sequence[str]) -> None:
        if self._file is None:
            try:
                self._file = self.path.open(self._mode)
            except OSError as error:
                raise InvalidRequestError.of("--rejects", f"cannot be written: {error}") from error
        line = {"file": str(file), "rows": list(rows), "reasons": list(reasons), "content": content}
        self._file.write(json.dumps(line, default=str) + "\n")


class ImportRun:
    """One import. `done_before` says, for the file that is being read, which row to begin at next time."""

    def __init__(
        self, mapping: MappingFile, rejects: Rejects, from_row: int, show: Callable[[float, int], None]
    ) -> None:
        self.imported = Imported()
        self.file = Path()
        self.done_before = from_row
        self._mapping = mapping
        self._rejects = rejects
        self._from_row = from_row
        self._show = show

    def check(self, files: Sequence[Path]) -> None:
        """Maps everything and sends nothing."""
        for file in files:
            for batch in import_batches(file, self._mapping):
                self._account(file, batch)
                room = _EXAMPLES - len(self.imported.examples)
                self.imported.examples += [_shown(one) for one in self._sendable(batch)[:room]]

    async def send(self, files: Sequence[Path], sender: Sender, speed: float | None) -> None:
        """Sends everything; durable when it returns. Waits when the door is behind."""
        pace = Pace(speed)
        for file in files:
            self.file, self.done_before = file, self._from_row
            try:
                await self._send_file(file, sender, pace)
            finally:
                # what came before a file broke off is wanted too; a door that is gone says so again
                await sender.flush()
        counts = sender.counts
        self.imported.accepted += counts.accepted
        self.imported.duplicates += counts.duplicates
        self.imported.refused += counts.rejected

    async def _send_file(self, file: Path, sender: Sender, pace: Pace) -> None:
        for number, batch in enumerate(import_batches(file, self._mapping), 1):
            self._account(file, batch)
            await self._send(file, self._sendable(batch), sender, pace)
            if number % _SETTLE_EVERY == 0 or self._mapping.kind != "events":
                await sender.flush()
                self.done_before = max(batch.settled_row, self._from_row)

    def _account(self, file: Path, batch: Batch) -> None:
        self.imported.rows += batch.rows
        self.imported.skipped += batch.skipped
        rejects = [reject for reject in batch.rejects if reject.row >= self._from_row]
        self.imported.rejected_rows += len(rejects)
        for reject in rejects:
            self._rejects.write(file, [reject.row], reject.content, reject.reasons)
        self._show(batch.share, self.imported.rows)

    def _sendable(self, batch: Batch) -> list[Mapped]:
        # all of a file is mapped, from wherever it is sent: groups and repeats come out the same
        wanted = [one for one in batch.mapped if one.rows[-1] >= self._from_row]
        self.imported.passed_over += len(batch.mapped) - len(wanted)
        return wanted

    async def _send(self, file: Path, mapped: list[Mapped], sender: Sender, pace: Pace) -> None:
        messages = [one.message for one in mapped]
        if self._mapping.kind == "events":
            await _send_events(cast("list[UserEvent]", messages), sender, pace)
            return
        if self._mapping.kind == "products":
            results = await sender.write_products(cast("list[Product]", messages))
        else:
            results = await sender.write_facts(cast("list[DatedFact]", messages))
        self.imported.note(results)
        # the door keeps dead letters of events alone
        for one, result in zip(mapped, results, strict=True):
            if result.violations:
                reasons = [f"{violation.field}: {violation.description}" for violation in result.violations]
                self._rejects.write(file, one.rows, _shown(one), reasons)


async def _send_events(events: list[UserEvent], sender: Sender, pace: Pace) -> None:
    if not events:
        return
    latest_us = max(event.event_time.ToMicroseconds() for event in events)
    for due_us, portion in pace.portions(Chunk([], events, at(latest_us))):
        await pace.wait_until(due_us)
        await sender.send(portion)


def _shown(one: Mapped) -> dict[str, Any]:
    return MessageToDict(one.message, preserving_proto_field_name=True)
