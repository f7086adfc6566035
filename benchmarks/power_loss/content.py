"""What one file holds: what is surely on the disk, and the operations since that may be, in whole or in part."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

SECTOR_BYTES = 512


class Operation(Protocol):
    """A change of a file's bytes, noted at `place` in the journal."""

    place: int

    def apply(self, data: bytearray) -> None:
        """Makes the whole change."""
        ...

    def apply_torn(self, data: bytearray, chance: random.Random) -> None:
        """Makes what part of it a disk may have made."""
        ...


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written at an offset."""

    place: int
    offset: int
    data: bytes

    def apply(self, data: bytearray) -> None:
        end = self.offset + len(self.data)
        _grow(data, end)
        data[self.offset : end] = self.data

    def apply_torn(self, data: bytearray, chance: random.Random) -> None:
        """Any of its sectors; where the file grew, others read as zeros."""
        start = self.offset
        while start < self.offset + len(self.data):
            end = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, self.offset + len(self.data))
            if chance.random() < 0.5:
                Write(self.place, start, self.data[start - self.offset : end - self.offset]).apply(data)
            start = end
        if chance.random() < 0.3:
            _grow(data, start)


@dataclass(frozen=True, slots=True)
class Resize:
    """A new size; not a smaller one when `only_grows`."""

    place: int
    size: int
    only_grows: bool

    def apply(self, data: bytearray) -> None:
        _grow(data, self.size)
        if not self.only_grows:
            del data[self.size :]

    def apply_torn(self, data: bytearray, chance: random.Random) -> None:
        if chance.random() < 0.5:
            self.apply(data)


def _grow(data: bytearray, size: int) -> None:
    if size > len(data):
        data.extend(bytes(size - len(data)))


class Content:
    """A file that was `data` on the disk when the recording began."""

    def __init__(self, data: bytes = b"") -> None:
        self._durable = bytearray(data)
        self._pending: list[Operation] = []

    def add(self, operation: Operation) -> None:
        self._pending.append(operation)

    def sync(self, begun: int) -> None:
        """A sync that began at `begun` has ended: what was noted before is on the disk."""
        done = [operation for operation in self._pending if operation.place < begun]
        for operation in done:
            operation.apply(self._durable)
        self._pending = self._pending[len(done) :]

    def whole(self) -> bytes:
        """Everything written."""
        data = bytearray(self._durable)
        for operation in self._pending:
            operation.apply(data)
        return bytes(data)

    def after_power_loss(self, chance: random.Random) -> bytes:
        """What was synced, and of the rest nothing, everything, some operations, or parts of them."""
        data = bytearray(self._durable)
        mode = chance.choice(("nothing", "everything", "whole", "torn", "torn"))
        share = chance.random()
        for operation in self._pending:
            if mode == "everything" or (mode == "whole" and chance.random() < share):
                operation.apply(data)
            elif mode == "torn":
                operation.apply_torn(data, chance)
        return bytes(data)
