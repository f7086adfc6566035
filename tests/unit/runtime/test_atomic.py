from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from headrace.runtime.atomic import check_sha256, read_checked, sha256, write_atomically
from headrace.runtime.errors import CorruptDataError


def test_a_written_file_is_whole_and_its_checksum_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "file.bin"
    checksum = write_atomically(path, b"weights")
    assert path.read_bytes() == b"weights"
    assert checksum == hashlib.sha256(b"weights").hexdigest() == sha256(b"weights")


def test_writing_again_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    write_atomically(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", "not bytes")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_bytes_that_changed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    checksum = write_atomically(path, b"weights")
    assert read_checked(path, checksum) == b"weights"
    path.write_bytes(b"wEights")
    with pytest.raises(CorruptDataError, match="file: SHA-256 is"):
        read_checked(path, checksum)
    with pytest.raises(CorruptDataError):
        check_sha256(b"", checksum, "nothing")
