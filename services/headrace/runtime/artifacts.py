"""Where weights and snapshots are kept: a directory, or anything fsspec can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec

from headrace.runtime.atomic import check_sha256, sha256, write_atomically
from headrace.runtime.errors import NotFoundError


class ArtifactStore:
    """Whole objects by name, with SHA-256 checksums, written once.

    `url` is a directory (`/var/lib/headrace/artifacts`) or an fsspec URL (`s3://bucket/prefix`).
    A directory is written by fsync and rename; object stores publish an object whole by themselves.
    """

    def __init__(self, url: str) -> None:
        # fsspec has no types: file systems are `Any`
        filesystem: Any
        filesystem, self._root = fsspec.core.url_to_fs(url)
        self._filesystem = filesystem
        self._is_local = "file" in _protocols(filesystem)

    def write(self, name: str, data: bytes) -> str:
        """Stores `data` under `name` and returns its SHA-256. Durable when it returns."""
        if self._is_local:
            return write_atomically(Path(self._root) / name, data)
        self._filesystem.pipe_file(f"{self._root}/{name}", data)
        return sha256(data)

    def read(self, name: str, expected_sha256: str | None = None) -> bytes:
        """The object's bytes. NotFoundError; CorruptDataError when the checksum differs."""
        try:
            data = bytes(self._filesystem.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError as error:
            raise NotFoundError(f"no artifact {name!r} under {self._root}") from error
        if expected_sha256 is not None:
            check_sha256(data, expected_sha256, name)
        return data

    def exists(self, name: str) -> bool:
        return bool(self._filesystem.exists(f"{self._root}/{name}"))

    def delete(self, name: str) -> None:
        """Removes an object or a folder of them; nothing happens when it is not there."""
        if self.exists(name):
            self._filesystem.rm(f"{self._root}/{name}", recursive=True)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
