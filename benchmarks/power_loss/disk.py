"""A disk on which a recording is played, and what it may hold when the power goes at any moment.

The model is that of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014):

- What a file held when an fsync or fdatasync of it began is on the disk once that has returned, with its size.
- Of what was written since, any operations may be there, in whole or in any of their 512-byte sectors.
- Creating, renaming and removing names are operations of the folder: on the disk once the folder was synced, until
  then the first of them may be there, in the folder's order. An fsync of a file says nothing about its name, as POSIX
  has it: what holds so holds on every file system.
- With `syncs_names` an fsync of a file or folder puts its name and those of the folders above it on the disk too, as
  ext4, XFS and btrfs do. PostgreSQL counts on that: it syncs no folder for the files of new tables and databases.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.power_loss.content import Content, Resize, Write
from benchmarks.power_loss.journal import Entry, Kind
from benchmarks.power_loss.names import Change, Folders, Names

ROOT = 0


class Disk:
    """One folder on a disk, which began as `base` has it."""

    def __init__(self, base: Path, inodes: Mapping[str, int], *, syncs_names: bool = False) -> None:
        """`inodes`: those of the recorded folder's first files and folders, by path below it ("." is itself)."""
        self._syncs_names = syncs_names
        self._files: dict[int, Content] = {}
        # which file or folder an inode is now
        self._number_of = {inodes["."]: ROOT}
        self._count = ROOT
        folders: Folders = {ROOT: {}}
        for path in sorted(base.rglob("*")):
            number = self._new(inodes[str(path.relative_to(base))])
            if path.is_dir():
                folders[number] = {}
            else:
                self._files[number] = Content(path.read_bytes())
            parent = self._number_of[inodes[str(path.parent.relative_to(base))]]
            folders[parent][path.name] = number
        self._names = Names(folders)

    def _new(self, inode: int) -> int:
        self._count += 1
        self._number_of[inode] = self._count
        return self._count

    def play(self, entry: Entry) -> None:
        """Makes one recorded operation."""
        match entry.kind:
            case Kind.WRITE:
                self._file(entry).add(Write(entry.place, entry.number, entry.data))
            case Kind.TRUNCATE | Kind.GROW:
                self._file(entry).add(Resize(entry.place, entry.number, entry.kind is Kind.GROW))
            case Kind.SYNC:
                self._sync(self._number_of[entry.inode], entry.number)
            case Kind.CREATE | Kind.MAKE_FOLDER | Kind.LINK:
                self._name(entry)
            case Kind.RENAME | Kind.REMOVE:
                self._rename_or_remove(entry)

    def _file(self, entry: Entry) -> Content:
        return self._files[self._number_of[entry.inode]]

    def _sync(self, number: int, begun: int) -> None:
        if number in self._files:
            self._files[number].sync(begun)
        else:
            self._names.sync_folder(number, begun)
        if self._syncs_names:
            self._names.sync_names_of(number, begun)

    def _name(self, entry: Entry) -> None:
        folder = self._number_of[entry.inode]
        if entry.kind is Kind.LINK:
            number = self._number_of[entry.other]
        elif self._names.now[folder].get(entry.name) == self._number_of.get(entry.other, -1):
            # two processes made it at once, and both say so
            return
        else:
            number = self._new(entry.other)
        if entry.kind is Kind.CREATE:
            self._files[number] = Content()
        self._names.add(Change(entry.place, entry.kind, folder, entry.name, number))

    def _rename_or_remove(self, entry: Entry) -> None:
        folder = self._number_of[entry.inode]
        target = self._names.now[folder].get(entry.name)
        if target is None:
            # two processes removed it at once: the second note tells nothing new
            return
        other = self._number_of[entry.other] if entry.kind is Kind.RENAME else 0
        self._names.add(Change(entry.place, entry.kind, folder, entry.name, target, other, entry.other_name))

    def whole(self) -> dict[str, bytes]:
        """Every file by its path, as a reader saw it before the power went."""
        return {path: self._files[number].whole() for path, number in _paths(self._names.now) if number in self._files}

    def cut(self, folder: Path, chance: random.Random) -> None:
        """Writes into a new folder what the disk may hold when the power goes now."""
        names = self._names.after_power_loss(chance)
        folder.mkdir(parents=True)
        for path, number in _paths(names):
            if number in self._files:
                (folder / path).write_bytes(self._files[number].after_power_loss(chance))
            else:
                (folder / path).mkdir()


def _paths(folders: Folders, start: int = ROOT, above: str = "") -> Iterator[tuple[str, int]]:
    """Path and number of everything, folders before what is in them."""
    for name, number in folders[start].items():
        yield above + name, number
        if number in folders:
            yield from _paths(folders, number, f"{above}{name}/")


def played(disk: Disk, recorded: Iterable[Entry]) -> Disk:
    """The disk after a whole recording."""
    for entry in recorded:
        disk.play(entry)
    return disk
