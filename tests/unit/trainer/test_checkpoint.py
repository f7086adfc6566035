"""Checkpoints: whole or not at all, two of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headrace.trainer.checkpoint import Checkpoints


def _save(checkpoints: Checkpoints, entry: int) -> None:
    checkpoints.save(entry, {"offset": entry * 10}, {"a": np.full(3, entry), "b": np.zeros((0, 4), np.float32)})


def test_the_newest_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for entry in (1, 2):
        _save(checkpoints, entry)
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.entry, newest.facts, newest.arrays["a"].tolist()) == (2, {"offset": 20}, [2, 2, 2])
    assert newest.arrays["b"].shape == (0, 4)


def test_there_may_be_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).newest() is None
    assert Checkpoints(tmp_path).oldest_entry() == 0


def test_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for entry in (1, 2, 3):
        _save(checkpoints, entry)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert checkpoints.oldest_entry() == 2


def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for entry in (1, 2):
        _save(checkpoints, entry)
    newest = sorted(tmp_path.glob("*.safetensors"))[-1]
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    found = checkpoints.newest()
    assert found is not None
    assert found.entry == 1


def test_arrays_without_a_manifest_are_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    _save(checkpoints, 1)
    (tmp_path / "000000000002.safetensors").write_bytes(b"half")
    found = checkpoints.newest()
    assert found is not None
    assert found.entry == 1
