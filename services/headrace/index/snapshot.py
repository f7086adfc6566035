"""All spaces as of one log record or newer: files of rows, and a manifest written last.

Rows are read while they go on changing, so none is held back meanwhile: a row that is newer than the snapshot is
written once more when the log after it is replayed, to the same value. Holding all rows as of one moment took a third
more memory while everything was written over.

A snapshot is there when its manifest is; a snapshot that does not match its checksums is passed
over for the one before, and the write-ahead log is kept long enough for that.
"""

# N rows, D dimension

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headrace.index.rolling_hash import RollingHash
from headrace.index.rows import U32, Rows
from headrace.index.segment import Segment
from headrace.runtime.atomic import check_sha256, make_directory, sha256, sync_directory, write_atomically
from headrace.runtime.errors import CorruptDataError
from headrace.runtime.stored_json import parsed

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_KEPT = 2
_FILE = re.compile(r"space-\d+\.rows")
_MOST_DIMENSIONS = 1 << 24
_READ_ROWS = 1 << 14
# of snapshots by builds that did not hash what they took
_UNHASHED = RollingHash(chain=None)
# gathering rows holds the interpreter lock: so few keep it for well under a millisecond
_WRITE_ROWS = 1 << 11


@dataclass(frozen=True)
class SpaceBase:
    """One space in a snapshot: where it stood, and the file that holds its rows."""

    name: str
    dimension: int
    rows: int
    sequence: int
    log_offset: int
    file: str
    sha256: str
    rolling_hash: RollingHash = _UNHASHED


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds: all log records up to `last` are in it, and of later ones some rows."""

    last: int
    active: str
    spaces: tuple[SpaceBase, ...]


@dataclass(frozen=True)
class Snapshotted:
    """A space to be written: its items, and where it stood, when the snapshot began."""

    name: str
    segment: Segment
    ordinals: U32
    sequence: int
    log_offset: int
    rolling_hash: RollingHash


@dataclass(frozen=True)
class _Sealed:
    manifest: str
    sha256: str


class Snapshots:
    """The snapshots in a directory, the newest two of which are kept."""

    def __init__(self, directory: Path) -> None:
        make_directory(directory)
        self._directory = directory

    def write(self, last: int, active: str, spaces: Sequence[Snapshotted]) -> Manifest:
        """Writes a snapshot; durable when it returns."""
        folder = self._directory / f"{last:020d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        bases = tuple(_written(folder / f"space-{place}.rows", space) for place, space in enumerate(spaces))
        manifest = Manifest(last, active, bases)
        write_atomically(folder / _MANIFEST, _manifest_bytes(manifest))
        sync_directory(self._directory)
        return manifest

    def newest(self) -> Iterator[tuple[Manifest, Path]]:
        """Manifests of the snapshots, newest first; passes over those that cannot be read, and says so."""
        for folder in reversed(self._folders()):
            try:
                yield _manifest(folder), folder
            except (OSError, CorruptDataError) as error:
                skipped(folder, error)

    def delete_old(self) -> int:
        """Deletes all but the newest two; the `last` of the older one that is kept, 0 when there is no second.

        What a crash left half-written goes too, so nothing may be writing a snapshot meanwhile.
        """
        kept = [folder for folder in self._folders() if (folder / _MANIFEST).exists()][-_KEPT:]
        for folder in self._folders():
            if folder not in kept:
                shutil.rmtree(folder)
        return int(kept[0].name) if len(kept) == _KEPT else 0

    def _folders(self) -> list[Path]:
        return sorted(path for path in self._directory.iterdir() if path.name.isdigit())


def skipped(folder: Path, error: Exception) -> None:
    """Says that a snapshot cannot be used."""
    log.error("snapshot_skipped", extra={"snapshot": folder.name, "reason": str(error)})


def read_rows(folder: Path, base: SpaceBase) -> Iterator[Rows]:
    """The rows of a space, in pieces. CorruptDataError before the first when the file is not what was written."""
    path, row = folder / base.file, _row(base.dimension)
    if path.stat().st_size != base.rows * row.itemsize:
        raise CorruptDataError(f"{path.name}: {path.stat().st_size} bytes are not {base.rows} rows")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != base.sha256:
            raise CorruptDataError(f"{path.name}: SHA-256 is {actual}, expected {base.sha256}")
        file.seek(0)
        while data := file.read(_READ_ROWS * row.itemsize):
            read = np.frombuffer(data, row)
            yield Rows(
                read["ordinal"].copy(),
                np.ascontiguousarray(read["vector"]),
                read["sequence"].copy(),
                read["log_offset"].copy(),
            )


def _written(path: Path, space: Snapshotted) -> SpaceBase:
    hashed, dimension, written = hashlib.sha256(), space.segment.dimension, 0
    with path.open("wb") as file:
        for start in range(0, len(space.ordinals), _WRITE_ROWS):
            rows = space.segment.get(space.ordinals[start : start + _WRITE_ROWS])
            data = _row_bytes(rows, dimension)
            hashed.update(data)
            file.write(data)
            written += len(rows)
        _sync(file)
    extent = (written, space.sequence, space.log_offset)
    return SpaceBase(space.name, dimension, *extent, path.name, hashed.hexdigest(), space.rolling_hash)


def _row(dimension: int) -> np.dtype[np.void]:
    return np.dtype([("ordinal", "<u4"), ("sequence", "<i8"), ("log_offset", "<i8"), ("vector", "<f4", (dimension,))])


def _row_bytes(rows: Rows, dimension: int) -> bytes:
    packed = np.empty(len(rows), _row(dimension))
    packed["ordinal"] = rows.ordinals
    packed["sequence"] = rows.sequences
    packed["log_offset"] = rows.log_offsets
    packed["vector"] = rows.vectors_ND
    return packed.tobytes()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _manifest_bytes(manifest: Manifest) -> bytes:
    body = json.dumps(asdict(manifest))
    return json.dumps({"manifest": body, "sha256": sha256(body.encode())}).encode()


def _manifest(folder: Path) -> Manifest:
    sealed = parsed(_Sealed, (folder / _MANIFEST).read_bytes(), _MANIFEST)
    body = sealed.manifest.encode()
    check_sha256(body, sealed.sha256, _MANIFEST)
    manifest = parsed(Manifest, body, _MANIFEST)
    for base in manifest.spaces:
        if not (_FILE.fullmatch(base.file) and 0 < base.dimension <= _MOST_DIMENSIONS):
            raise CorruptDataError(f"{_MANIFEST}: no space has {base.dimension} dimensions in a file {base.file!r}")
    return manifest
