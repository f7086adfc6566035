"""The files of a suite's states in a backup: copied whole while the suite goes on, and checked by SHA-256."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from headrace.cli.moving.log_copy import LogCopy
from headrace.runtime.atomic import make_directory, sync_tree, write_atomically
from headrace.runtime.errors import CorruptDataError, NotFoundError
from headrace.runtime.stored_json import parsed

# in this order: a delta log is to hold what the checkpoint before it needs. The index is left out: the trainer
# fills it again from the delta log
_FOLDERS = ("trainer/checkpoints", "trainer-*/checkpoints", "artifacts", "feature-store", "feature-store-*-of-*")
_DATABASES = (
    "trainer/deltas.db",
    "trainer/own-releases.db",
    "trainer-*/deltas.db",
    "trainer-*/own-releases.db",
)
# without it, whoever was forgotten cannot be told from others
_PRIVACY_KEY = "privacy.key"
_MANIFEST = "backup.json"
_FORM = 1
# a file of a running suite may be replaced by a newer one while its folder is copied
_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Form:
    form: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. It is written last: a folder without one is no backup."""

    form: int
    version: str
    created: str
    log: LogCopy
    # SHA-256 by path
    files: dict[str, str]


def copy_files(data_dir: Path, target: Path) -> None:
    """Copies the states of trainer and feature store, and the privacy key; what is not there is left out."""
    make_directory(target)
    for folder in chain.from_iterable(data_dir.glob(pattern) for pattern in _FOLDERS):
        if folder.is_dir():
            _copy_folder(folder, target / folder.relative_to(data_dir))
    for database in chain.from_iterable(data_dir.glob(pattern) for pattern in _DATABASES):
        _copy_database(database, target / database.relative_to(data_dir))
    if (data_dir / _PRIVACY_KEY).is_file():
        shutil.copy2(data_dir / _PRIVACY_KEY, target / _PRIVACY_KEY)


def _copy_folder(source: Path, target: Path) -> None:
    for attempt in range(_TRIES):
        shutil.rmtree(target, ignore_errors=True)
        try:
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*.tmp"))
        except (shutil.Error, FileNotFoundError):
            if attempt + 1 == _TRIES:
                raise
        else:
            return


def _copy_database(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    given, taken = sqlite3.connect(f"file:{source}?mode=ro", uri=True), sqlite3.connect(target)
    try:
        given.backup(taken)
    finally:
        given.close()
        taken.close()


def write_manifest(folder: Path, version: str, log: LogCopy) -> Manifest:
    """Notes every file of a backup, and that it is whole: after all of them are durable."""
    sync_tree(folder)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    manifest = Manifest(_FORM, version, created, log, {path: _sha256(folder / path) for path in _paths(folder)})
    write_atomically(folder / _MANIFEST, json.dumps(asdict(manifest), indent=2).encode())
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What a backup should hold. NotFoundError: the folder is none; CorruptDataError: a file is not as it was."""
    try:
        stored = (folder / _MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"{folder} is no backup, or one that was broken off: it has no {_MANIFEST}") from error
    form = parsed(_Form, stored, str(folder / _MANIFEST)).form
    if form != _FORM:
        raise CorruptDataError(f"{folder}: form {form} of another version, this one reads {_FORM}")
    manifest = parsed(Manifest, stored, str(folder / _MANIFEST))
    there = set(_paths(folder))
    for path, sha256 in manifest.files.items():
        if path not in there or _sha256(folder / path) != sha256:
            raise CorruptDataError(f"{folder / path} is not what the backup held")
    return manifest


def _paths(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            yield path.relative_to(folder).as_posix()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
