"""Which spaces are needed, and that a rotation is found again after a crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.deltas import vectors_digest
from headrace.trainer.lineage import Lineage
from headrace.trainer.records import Slice
from headrace.trainer.rotation import needless_spaces
from headrace.trainer.settings import TrainerSettings


@pytest.mark.parametrize(
    ("spaces", "needed", "needless"),
    [
        (["a"], {"a"}, []),
        (["a", "b"], {"a"}, []),
        (["a", "b", "c"], {"c"}, ["a"]),
        (["a", "b", "c"], set(), ["a"]),
        (["a", "b", "c", "d"], {"a"}, ["b"]),
        (["a", "b", "c", "d", "e"], {"b", "other-1"}, ["a", "c"]),
    ],
)
def test_the_newest_spaces_are_needed_and_those_of_the_plan(
    spaces: list[str], needed: set[str], needless: list[str]
) -> None:
    assert needless_spaces(spaces, 2, needed) == needless


def test_a_rotation_before_a_crash_is_there_after_it_once(
    tmp_path: Path, settings: TrainerSettings, shop: object
) -> None:
    delta_log = DeltaLog(tmp_path / "deltas.db", "main", settings.dimension)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    anchored = settings.model_copy(update={"anchor": 1.0})
    lineage = Lineage(anchored, delta_log, checkpoints)
    slices = [shop.visits(0, 6), shop.visits(1, 6, after=36)]
    lineage.learn(slices[0])
    lineage.send_drifted()
    space = lineage.rotate("asked for")
    lineage.learn(slices[1])

    again = Lineage(anchored, delta_log, checkpoints)
    known = {records.after: records for records in slices}
    for entry in again.load():
        is_slice = entry.after < entry.until
        assert again.relearn(entry, known[entry.after] if is_slice else Slice.empty(entry.after, entry.until))
    assert again.settle() == 0
    assert (delta_log.space, len(delta_log.spaces())) == (space, 2)
    assert again.look().digest == lineage.look().digest == vectors_digest(delta_log.live())
    for name, value in lineage.learner.arrays().items():
        np.testing.assert_array_equal(again.learner.arrays()[name], value, err_msg=name)
    delta_log.close()
