"""Files that are there whole or not at all, and say so by checksum."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from headrace.runtime.errors import CorruptDataError

_UNFINISHED = ".tmp"


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left half written anywhere below a folder: nobody else may write there now."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> str:
    """Writes `data` so that a crash leaves the old file or the new one; returns its SHA-256."""
    make_directory(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}{_UNFINISHED}")
    try:
        _write_durably(temporary, data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return sha256(data)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_checked(path: Path, expected_sha256: str) -> bytes:
    """The bytes of `path`; CorruptDataError unless they have the expected SHA-256."""
    data = path.read_bytes()
    check_sha256(data, expected_sha256, str(path))
    return data


def check_sha256(data: bytes, expected: str, name: str) -> None:
    """Raises CorruptDataError unless `data` hashes to `expected`."""
    actual = sha256(data)
    if actual != expected:
        raise CorruptDataError(f"{name}: SHA-256 is {actual}, expected {expected}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_directory(path: Path) -> None:
    """Makes a directory, and those above it, whose names are on the disk when it returns."""
    if not path.parent.is_dir():
        make_directory(path.parent)
    path.mkdir(exist_ok=True)
    # also when it was there: whoever made it may have been killed before its sync. A directory that we may not
    # even read has another maker
    with contextlib.suppress(PermissionError):
        sync_directory(path.parent)


def sync_tree(folder: Path) -> None:
    """Makes everything in a folder durable, and its own name: for files that something else than these here wrote."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(parent, name))
        sync_directory(Path(parent))
    make_directory(folder)


def sync_directory(path: Path) -> None:
    """Makes renames and new names in a directory durable."""
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
