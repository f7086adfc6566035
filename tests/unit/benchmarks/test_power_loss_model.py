"""What the simulated disk may lose when the power goes, and what it never does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from benchmarks.power_loss.disk import Disk, played
from benchmarks.power_loss.journal import Entry, Kind

FOLDER, FILE, OTHER, BELOW = 10, 11, 12, 20
OLD, NEW = b"a" * 1024, b"b" * 1024


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with one file that is on the disk."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "file").write_bytes(OLD)
    return folder


def noted(*operations: tuple[Kind, int, int, str, str, bytes]) -> list[Entry]:
    """Entries at the places 1, 2, …; a sync began just before it is noted."""
    places = count(1)
    return [
        Entry(place, kind, inode, other, place if kind is Kind.SYNC else 0, name, other_name, data)
        for place, (kind, inode, other, name, other_name, data) in zip(places, operations, strict=False)
    ]


def write(inode: int, data: bytes) -> tuple[Kind, int, int, str, str, bytes]:
    return Kind.WRITE, inode, 0, "", "", data


def sync(inode: int) -> tuple[Kind, int, int, str, str, bytes]:
    return Kind.SYNC, inode, 0, "", "", b""


def create(inode: int, name: str, folder: int = FOLDER) -> tuple[Kind, int, int, str, str, bytes]:
    return Kind.CREATE, folder, inode, name, "", b""


def outcomes(base: Path, entries: Sequence[Entry], *, syncs_names: bool = False) -> list[dict[str, bytes]]:
    """What forty cuts leave, by path."""
    disk = played(Disk(base, {".": FOLDER, "file": FILE}, syncs_names=syncs_names), entries)
    chance, found = random.Random(1), []
    for _ in range(40):
        folder = base.parent / f"cut-{len(list(base.parent.iterdir()))}"
        disk.cut(folder, chance)
        files = (path for path in folder.rglob("*") if path.is_file())
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    return found


def test_what_was_synced_is_there(base: Path) -> None:
    synced = outcomes(base, noted(write(FILE, NEW), sync(FILE)))
    assert {one["file"] for one in synced} == {NEW}


def test_a_write_without_a_sync_may_be_there_whole_torn_or_not_at_all(base: Path) -> None:
    found = {one["file"] for one in outcomes(base, noted(write(FILE, NEW)))}
    assert found == {OLD, NEW, OLD[:512] + NEW[:512], NEW[:512] + OLD[:512]}


def test_a_write_during_a_sync_is_not_covered_by_it(base: Path) -> None:
    late = noted(write(FILE, NEW), sync(FILE))
    late[1] = Entry(2, Kind.SYNC, FILE, 0, 1, "", "", b"")
    assert OLD in {one["file"] for one in outcomes(base, late)}


def test_a_new_file_may_be_gone_until_its_folder_is_synced(base: Path) -> None:
    made = [create(OTHER, "new"), write(OTHER, NEW), sync(OTHER)]
    found = outcomes(base, noted(*made))
    assert {one.get("new") for one in found} == {None, NEW}
    assert {one.get("new") for one in outcomes(base, noted(*made, sync(FOLDER)))} == {NEW}


def test_where_syncing_a_file_syncs_its_name_the_folders_above_it_are_there_too(base: Path) -> None:
    made = noted((Kind.MAKE_FOLDER, FOLDER, BELOW, "below", "", b""), create(OTHER, "new", BELOW), sync(OTHER))
    assert {"below/new" in one for one in outcomes(base, made, syncs_names=True)} == {True}
    assert {"below/new" in one for one in outcomes(base, made)} == {True, False}


def test_names_of_one_folder_reach_the_disk_in_their_order(base: Path) -> None:
    found = outcomes(base, noted(create(OTHER, "first"), create(OTHER + 1, "second")))
    assert {tuple(sorted(one)) for one in found} == {("file",), ("file", "first"), ("file", "first", "second")}


def test_a_renaming_replaces_at_once_or_not_yet(base: Path) -> None:
    made = [create(OTHER, ".tmp"), write(OTHER, NEW), sync(OTHER), (Kind.RENAME, FOLDER, FOLDER, ".tmp", "file", b"")]
    found = outcomes(base, noted(*made))
    assert {one["file"] for one in found} == {OLD, NEW}
    assert {one["file"] for one in outcomes(base, noted(*made, sync(FOLDER)))} == {NEW}
