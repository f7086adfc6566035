"""Records what processes do to a folder, and plays it to the moments at which the power may go."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.power_loss.disk import Disk, played
from benchmarks.power_loss.journal import Acknowledgements, Kind, entries

_SOURCE = Path(__file__).with_name("recorder.c")
# ends a recorded process as SIGKILL does, but never between a change and its note, which would be missing
KILL = signal.SIGRTMAX
# mapped into memory, so no call tells what is written; SQLite never syncs it, and makes it anew
_REMADE = "-shm"


class NoCompilerError(Exception):
    """No C compiler is installed here."""


def build_recorder(folder: Path) -> Path:
    """The library to be preloaded, compiled into `folder`. NoCompilerError: nothing to compile it with."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise NoCompilerError("no C compiler: none of cc, gcc and clang on PATH")
    library = folder / "recorder.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class PowerLoss:
    """One cut: its number, the folder (of its old name) as the disk may hold it, and what clients had been told."""

    number: int
    folder: Path
    acknowledged: Sequence[bytes]


class Recording:
    """Of all that processes started with `environment()` do under `folder`, from now on.

    `work` is an empty folder for the journal, the first state and the cuts. `syncs_names`: see `Disk`.
    """

    def __init__(self, folder: Path, work: Path, library: Path, *, syncs_names: bool = False) -> None:
        self.folder = folder.resolve()
        self._work = work
        self._library = library
        self._syncs_names = syncs_names
        self.journal = work / "journal"
        self.journal.touch()
        # the recorded process may be another user's
        self.journal.chmod(0o666)
        shutil.copytree(self.folder, work / "base")
        self._inodes = {str(path.relative_to(self.folder)): path.stat().st_ino for path in self.folder.rglob("*")}
        self._inodes["."] = self.folder.stat().st_ino
        self.acknowledgements = Acknowledgements(self.journal)

    def environment(self, *, syncs: bool = True) -> dict[str, str]:
        """What a process gets in addition to be recorded; without `syncs` all of its syncs do nothing."""
        recorded = {
            "LD_PRELOAD": str(self._library),
            "POWER_LOSS_FOLDER": str(self.folder),
            "POWER_LOSS_JOURNAL": str(self.journal),
        }
        return recorded if syncs else recorded | {"POWER_LOSS_NO_SYNC": "1"}

    def faults(self, *ignored: str) -> list[str]:
        """Files that the recording does not tell byte for byte, but for those that end in `ignored`.

        Empty: every change of the folder went through the recorder. Nothing may be changing the folder.
        """
        told = played(self._disk(), entries(self.journal)).whole()
        real = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*") if path.is_file()}
        differing = [path for path in told.keys() & real.keys() if told[path] != real[path].read_bytes()]
        return sorted(
            path
            for path in [*(told.keys() ^ real.keys()), *differing]
            if not path.endswith((_REMADE, *ignored)) and not real.get(path, Path()).is_socket()
        )

    def _disk(self) -> Disk:
        return Disk(self._work / "base", self._inodes, syncs_names=self._syncs_names)

    def power_losses(self, count: int, seed: int, *, after_first_answer: bool = False) -> Iterator[PowerLoss]:
        """`count` random moments, in order, of all or of those after the first acknowledgement.

        Each folder is removed when the next one is asked for.
        """
        chance = random.Random(seed)
        is_answer = [entry.kind is Kind.ACKNOWLEDGE for entry in entries(self.journal)]
        first = is_answer.index(True) if after_first_answer else 1
        moments = sorted(chance.choices(range(first, is_answer.count(False) + 1), k=count))
        disk, acknowledged = self._disk(), list[bytes]()
        done = number = 0
        for entry in entries(self.journal):
            if entry.kind is Kind.ACKNOWLEDGE:
                acknowledged.append(entry.data)
                continue
            # before the next operation: what was acknowledged after the last one has been said
            while number < count and moments[number] == done:
                yield from self._cut(disk, number, chance, acknowledged)
                number += 1
            disk.play(entry)
            done += 1
        while number < count:
            yield from self._cut(disk, number, chance, acknowledged)
            number += 1

    def _cut(self, disk: Disk, number: int, chance: random.Random, acknowledged: list[bytes]) -> Iterator[PowerLoss]:
        place = self._work / f"cut-{number}"
        folder = place / self.folder.name
        disk.cut(folder, chance)
        _remove_remade(folder)
        yield PowerLoss(number, folder, tuple(acknowledged))
        shutil.rmtree(place)

    def close(self) -> None:
        self.acknowledgements.close()


def _remove_remade(folder: Path) -> None:
    for path in folder.rglob(f"*{_REMADE}"):
        os.unlink(path)
