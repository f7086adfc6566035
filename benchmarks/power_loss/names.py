"""Which names the folders have: those surely on the disk, and the changes since, of which a disk keeps the first."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from benchmarks.power_loss.journal import Kind

# names in a folder, and which file or folder each is: by number, since inodes are used again
Folders = dict[int, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Change:
    """One operation on names; `target` is what was named, in `folder` or (renamed) in `other_folder`."""

    place: int
    kind: Kind
    folder: int
    name: str
    target: int
    other_folder: int = 0
    other_name: str = ""

    @property
    def folders(self) -> tuple[int, ...]:
        return (self.folder, self.other_folder) if self.kind is Kind.RENAME else (self.folder,)

    def apply(self, folders: Folders) -> None:
        if self.kind in (Kind.REMOVE, Kind.RENAME):
            folders[self.folder].pop(self.name, None)
        if self.kind is Kind.RENAME:
            folders.setdefault(self.other_folder, {})[self.other_name] = self.target
        elif self.kind is not Kind.REMOVE:
            folders.setdefault(self.folder, {})[self.name] = self.target
        if self.kind is Kind.MAKE_FOLDER:
            folders.setdefault(self.target, {})


class Names:
    """All folders. Changes of one folder reach the disk in their order, those of several in any."""

    def __init__(self, durable: Folders) -> None:
        self._durable = {folder: dict(names) for folder, names in durable.items()}
        self.now = {folder: dict(names) for folder, names in durable.items()}
        self._pending: list[Change] = []

    def add(self, change: Change) -> None:
        change.apply(self.now)
        self._pending.append(change)

    def sync_folder(self, folder: int, begun: int) -> None:
        """What was changed in a folder before `begun` is on the disk, with what that needs in others."""
        self._sync({folder: begun})

    def sync_names_of(self, target: int, begun: int) -> None:
        """The names of a file or folder are on the disk, and those of the folders above it."""
        upto: dict[int, int] = {}
        targets = {target}
        # backwards: a folder was made before what is in it
        for change in reversed(self._pending):
            if change.target in targets and change.place < begun:
                for folder in change.folders:
                    upto[folder] = max(upto.get(folder, 0), change.place + 1)
                targets.update(change.folders)
        self._sync(upto)

    def _sync(self, given: Mapping[int, int]) -> None:
        """Applies the changes of some folders, noted before a place each."""
        upto = dict(given)
        # backwards: a renaming between two folders takes the earlier changes of the other one with it
        for change in reversed(self._pending):
            if any(change.place < upto.get(folder, 0) for folder in change.folders):
                for folder in change.folders:
                    upto[folder] = max(upto.get(folder, 0), change.place + 1)
        rest = []
        for change in self._pending:
            if change.place < upto.get(change.folder, 0):
                change.apply(self._durable)
            else:
                rest.append(change)
        self._pending = rest

    def after_power_loss(self, chance: random.Random) -> Folders:
        """The names on the disk, with the first of each folder's changes since: none, all or some."""
        mode = chance.choice(("none", "all", "some", "some"))
        folders = {folder: dict(names) for folder, names in self._durable.items()}
        if mode == "none":
            return folders
        kept = self._pending if mode == "all" else self._first_ones(chance)
        for change in kept:
            change.apply(folders)
        return folders

    def _first_ones(self, chance: random.Random) -> Collection[Change]:
        kept: list[Change] = []
        stopped: set[int] = set()
        share = chance.random()
        for change in self._pending:
            if stopped.isdisjoint(change.folders) and chance.random() < share:
                kept.append(change)
            else:
                stopped.update(change.folders)
        return kept
