"""The learner's whole state on disk, so that a restart learns only what came after."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from headrace.runtime.atomic import read_checked, sync_directory, write_atomically
from headrace.runtime.errors import CorruptDataError
from headrace.runtime.stored_json import parsed
from headrace.trainer.arrays import Arrays

log = logging.getLogger(__name__)

_KEPT = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after journal entry `entry`; `facts` is what JSON can say of it."""

    entry: int
    facts: dict[str, Any]
    arrays: Arrays


@dataclass(frozen=True, slots=True)
class _Manifest:
    """The checksum is that of the arrays."""

    entry: int
    sha256: str
    facts: dict[str, Any]


class Checkpoints:
    """The two newest checkpoints of a folder: the second is for the day that the first cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, entry: int, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Durable when it returns: arrays first, then the manifest that names them and their checksum."""
        data = save_arrays({name: np.ascontiguousarray(value) for name, value in arrays.items()})
        name = f"{entry:012d}"
        digest = write_atomically(self._folder / f"{name}.safetensors", data)
        manifest = {"entry": entry, "sha256": digest, "facts": dict(facts)}
        write_atomically(self._folder / f"{name}.json", json.dumps(manifest, sort_keys=True).encode())
        for old in self._manifests()[:-_KEPT]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def forget_before(self, entry: int) -> None:
        """Removes all checkpoints that are older than that of `entry`, which must be there."""
        for old in self._manifests():
            if int(old.stem) < entry:
                old.unlink()
                old.with_suffix(".safetensors").unlink(missing_ok=True)
        sync_directory(self._folder)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None when there is none."""
        for manifest in reversed(self._manifests()):
            try:
                return _read(manifest)
            except (CorruptDataError, FileNotFoundError) as error:
                log.error("checkpoint_unreadable", extra={"checkpoint": manifest.name, "reason": str(error)})
        return None

    def at(self, entry: int) -> Checkpoint:
        """The checkpoint of an entry. FileNotFoundError: it is not kept; CorruptDataError: it is not whole."""
        return _read(self._folder / f"{entry:012d}.json")

    def oldest_entry(self) -> int:
        """The entry of the oldest checkpoint kept; 0 when there is none."""
        manifests = self._manifests()
        return int(manifests[0].stem) if manifests else 0

    def _manifests(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))


def _read(path: Path) -> Checkpoint:
    manifest = parsed(_Manifest, path.read_bytes(), path.name)
    data = read_checked(path.with_suffix(".safetensors"), manifest.sha256)
    try:
        return Checkpoint(manifest.entry, manifest.facts, dict(load_arrays(data)))
    except SafetensorError as error:
        raise CorruptDataError(f"{path.stem}.safetensors: {error}") from error
