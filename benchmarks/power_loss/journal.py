"""The journal of one recording: file operations and acknowledgements, in the order in which they happened."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_MAGIC = 0x4C575052
# magic, kind, inode, inode, number, lengths of two names and of the data: `struct head` in recorder.c
_HEAD = struct.Struct("<IIQQQIIQ")


class Kind(StrEnum):
    """What happened, and which fields of an entry say it."""

    CREATE = "C"  # a new file `other` got the name `name` in the folder `inode`
    MAKE_FOLDER = "D"  # the same of a new folder
    LINK = "L"  # the same of a file that has another name
    WRITE = "W"  # `data` at `number` in the file `inode`
    TRUNCATE = "T"  # the file `inode` has the size `number`
    GROW = "G"  # the file `inode` has at least the size `number`
    SYNC = "S"  # of a file or folder `inode`; it began when the journal was `number` bytes long
    RENAME = "R"  # `name` in the folder `inode` is `other_name` in the folder `other`
    REMOVE = "U"  # `name` in the folder `inode` is gone
    ACKNOWLEDGE = "A"  # a client was told `data`


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal, at `place` (bytes from its beginning)."""

    place: int
    kind: Kind
    inode: int
    other: int
    number: int
    name: str
    other_name: str
    data: bytes


def entries(path: Path) -> Iterator[Entry]:
    """All entries, in order. ValueError: this is no journal."""
    place = 0
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            magic, kind, inode, other, number, name, other_name, size = _HEAD.unpack(head)
            if magic != _MAGIC:
                raise ValueError(f"{path} is no journal at byte {place}")
            names = file.read(name).decode(), file.read(other_name).decode()
            yield Entry(place, Kind(chr(kind)), inode, other, number, *names, file.read(size))
            place += _HEAD.size + name + other_name + size


class Acknowledgements:
    """Notes in the journal that a client has been told something; what is noted must be on the disk by then."""

    def __init__(self, journal: Path) -> None:
        self._handle = os.open(journal, os.O_WRONLY | os.O_APPEND)

    def note(self, data: bytes) -> None:
        os.write(self._handle, _HEAD.pack(_MAGIC, ord(Kind.ACKNOWLEDGE), 0, 0, 0, 0, 0, len(data)) + data)

    def close(self) -> None:
        os.close(self._handle)
