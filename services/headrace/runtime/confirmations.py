"""A consumer's word that people are forgotten: noted in a file, and sent to the log once that is durable.

So the word survives a crash between the two, with what was erased.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.runtime.atomic import write_atomically
from headrace.runtime.erasures import done
from headrace.runtime.eventlog import EventLog
from headrace.runtime.privacy import Privacy
from headrace.runtime.stored_json import parsed


@dataclass(frozen=True, slots=True)
class _Word:
    offset: int
    erased: dict[str, int]


class Confirmations:
    """Erasures that `consumer` has done and not said yet, in the file `path`. CorruptDataError: nobody can tell."""

    def __init__(self, path: Path, consumer: str, privacy: Privacy) -> None:
        self._path = path
        self._consumer = consumer
        self._fingerprint = privacy.fingerprint
        self._waiting: dict[str, _Word] = {}
        if path.exists():
            self._waiting = parsed(dict[str, _Word], path.read_bytes(), str(path))

    def are_due(self, durable_offset: int) -> bool:
        """Whether there is something to `send`."""
        return any(word.offset <= durable_offset for word in self._waiting.values())

    def note(self, erasure_id: str, offset: int, erased: Mapping[str, int]) -> None:
        """Notes what was erased for the tombstone at `offset`. Done again after a crash, the counts are the larger."""
        before = self._waiting.get(erasure_id, _Word(offset, {})).erased
        largest = {name: max(count, before.get(name, 0)) for name, count in erased.items()}
        self._waiting[erasure_id] = _Word(offset, before | largest)
        self._write()

    async def send(self, log: EventLog, durable_offset: int) -> None:
        """Says so of all whose tombstone is at `durable_offset` at the latest: the state up to there is durable."""
        sent = {name: word for name, word in self._waiting.items() if word.offset <= durable_offset}
        if not sent:
            return
        await log.append([done(name, self._consumer, self._fingerprint, word.erased) for name, word in sent.items()])
        for name in sent:
            del self._waiting[name]
        self._write()

    def _write(self) -> None:
        words = {name: asdict(word) for name, word in self._waiting.items()}
        write_atomically(self._path, json.dumps(words, sort_keys=True).encode())
