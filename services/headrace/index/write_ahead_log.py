"""Records on disk before they are visible: numbered, checksummed, synced in groups.

A file is named for the number of its first record. What a crash leaves half-written at the end is
cut when the log is opened; none of it was ever acknowledged.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from headrace.runtime.atomic import make_directory, sync_directory
from headrace.runtime.errors import UnavailableError

log = logging.getLogger(__name__)

_MAGIC = b"HRINDEX1"
# length of the payload, CRC-32 of number and payload, number
_HEAD = struct.Struct("<IIQ")
_SUFFIX = ".wal"
# there is no next one after the largest that fits
_MOST = (1 << 63) - 1


class WriteAheadLog:
    """The log in a directory. One thread uses it."""

    def __init__(self, directory: Path, file_bytes: int = 64 << 20) -> None:
        make_directory(directory)
        self._directory = directory
        self._file_bytes = file_bytes
        self._file: BinaryIO | None = None
        self._size = 0
        # the number of the newest record; known once `recover` has read the log
        self.last = 0

    def recover(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Records with a number above `after`, in order; then the log is ready to be appended to.

        Cuts the log at the first record that is not whole, and says so.
        """
        self.last = after
        files = self._files()
        for place, path in enumerate(files):
            good = _start(path)
            for number, payload, end in _records(path):
                if number > self.last + 1:
                    # a snapshot or a file before it is lost; what follows is still the newest there is
                    log.error("log_gap", extra={"path": path.name, "expected": self.last + 1, "found": number})
                if number > after:
                    yield number, payload
                self.last = max(self.last, number)
                good = end
            if good < path.stat().st_size:
                self._cut(path, good, files[place + 1 :])
                break
            # a process killed inside its sync leaves records that only the page cache has; from here on they count
            _sync(path)
        self._open_new()

    def append(self, payloads: Sequence[bytes]) -> None:
        """Writes records and syncs them: durable when it returns.

        UnavailableError when the disk refuses; then nothing was taken, and a later append tries anew.
        """
        data = b"".join(_framed(number, payload) for number, payload in enumerate(payloads, self.last + 1))
        try:
            if self._file is None or self._size + len(data) > self._file_bytes:
                self._open_new()
            assert self._file is not None
            _write_all(self._file, data)
            os.fdatasync(self._file.fileno())
        except OSError as error:
            self._abandon()
            raise UnavailableError(f"write-ahead log {self._directory.name}: {error}", retry_after_s=1.0) from error
        self._size += len(data)
        self.last += len(payloads)

    def rotate(self) -> None:
        """Begins a new file, so that the older ones can go once a snapshot holds them."""
        if self._size > len(_MAGIC):
            self._open_new()

    def delete_through(self, number: int) -> None:
        """Deletes the files whose records are all numbered `number` or lower."""
        files = self._files()
        for path, following in pairwise(files):
            if _first_number(following) <= number + 1:
                path.unlink()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob(f"*{_SUFFIX}"), key=_first_number)

    def _open_new(self) -> None:
        self.close()
        path = self._directory / f"{self.last + 1:020d}{_SUFFIX}"
        # unbuffered: a record is in the file or it is not. An old file of this name holds no whole record
        file = path.open("wb", buffering=0)
        _write_all(file, _MAGIC)
        os.fsync(file.fileno())
        sync_directory(self._directory)
        self._file, self._size = file, len(_MAGIC)

    def _abandon(self) -> None:
        # after a failed sync nobody knows what is on disk: cut back to what was acknowledged, begin a new file
        file, self._file = self._file, None
        if file is None:
            return
        try:
            os.ftruncate(file.fileno(), self._size)
            os.fsync(file.fileno())
        except OSError as error:
            log.error("log_not_cut", extra={"reason": str(error)})
        file.close()

    def _cut(self, path: Path, good: int, following: Sequence[Path]) -> None:
        size = path.stat().st_size
        log.warning("log_cut", extra={"path": path.name, "kept_bytes": good, "cut_bytes": size - good})
        os.truncate(path, good)
        # else what was cut may be back after a power loss, and the files that will have followed set aside for it
        _sync(path)
        for other in following:
            log.error("log_file_set_aside", extra={"path": other.name})
            other.rename(other.with_suffix(".cut"))
        sync_directory(self._directory)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _write_all(file: BinaryIO, data: bytes) -> None:
    # a full disk may take a part of a write without an error
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _first_number(path: Path) -> int:
    return int(path.stem)


def _framed(number: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), _crc(number, payload), number) + payload


def _crc(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(number.to_bytes(8, "little")))


def _start(path: Path) -> int:
    with path.open("rb") as file:
        return len(_MAGIC) if file.read(len(_MAGIC)) == _MAGIC else 0


def _records(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Number, payload and end of each whole record, up to the first that is not."""
    end = _start(path)
    if not end:
        return
    with path.open("rb") as file:
        file.seek(end)
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, crc, number = _HEAD.unpack(head)
            payload = file.read(length)
            if len(payload) < length or _crc(number, payload) != crc or number > _MOST:
                return
            end += len(head) + length
            yield number, payload, end
