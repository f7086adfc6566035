"""Items are held near where the last release has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headrace.trainer.anchor import Anchor
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.learner import Learner
from headrace.trainer.lineage import Lineage
from headrace.trainer.records import Slice
from headrace.trainer.settings import TrainerSettings


def test_the_pull_is_the_mean_of_one_minus_cosine_over_what_is_held() -> None:
    anchor = Anchor(2, weight=3.0)
    anchor.hold(np.array([[1, 0], [0, 1], [0, 0]], np.float32))
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    # item 0 stayed, item 1 stands across, item 2 was deleted and item 5 came later
    assert float(anchor.pull(np.array([0, 1, 2, 5]), vectors)) == pytest.approx(3.0 * (0 + 1) / 2)
    assert float(anchor.pull(np.array([2, 5]), vectors[:2])) == 0.0


def test_without_weight_nothing_is_kept() -> None:
    anchor = Anchor(2, weight=0.0)
    anchor.hold(np.ones((3, 2), np.float32))
    assert not anchor.is_held
    assert len(anchor.arrays()["vectors_ND"]) == 0


def test_a_checkpoint_of_before_there_was_an_anchor_holds_to_nothing() -> None:
    anchor = Anchor(2, weight=1.0)
    anchor.restore({})
    assert not anchor.is_held


def _moved_by(settings: TrainerSettings, shop: object) -> float:
    """How far items turn from where they were held, on average."""
    learner = Learner(settings)
    learner.sent.note(learner.learn_products(shop.products()))
    for number in range(4):
        learner.sent.note(learner.learn(shop.visits(number, 40), number).deltas)
    before = learner.item_vectors(np.arange(shop.items))
    learner.anchor.hold(before)
    for number in range(4, 8):
        learner.sent.note(learner.learn(shop.visits(number, 40), number).deltas)
    return float(1 - (learner.item_vectors(np.arange(shop.items)) * before).sum(axis=1).mean())


def test_a_stronger_anchor_lets_items_move_less(settings: TrainerSettings, shop: object) -> None:
    free, held = (_moved_by(settings.model_copy(update={"anchor": weight}), shop) for weight in (0.0, 30.0))
    # Adam takes steps of one size, however small a gradient is: held items tremble
    assert held < 0.8 * free


def test_an_anchor_is_found_again_after_a_crash(tmp_path: Path, settings: TrainerSettings, shop: object) -> None:
    anchored = settings.model_copy(update={"anchor": 1.0})
    delta_log = DeltaLog(tmp_path / "deltas.db", "main", settings.dimension)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    lineage = Lineage(anchored, delta_log, checkpoints)
    slices: dict[int, Slice] = {}
    for number in range(6):
        records = shop.visits(number, 6, after=lineage.standing.offset)
        slices[records.after] = records
        lineage.learn(records)
        if number == 1:
            lineage.send_drifted()
            lineage.checkpoint()
        if number == 3:
            lineage.send_drifted()
    assert lineage.learner.anchor.is_held

    again = Lineage(anchored, delta_log, checkpoints)
    for entry in again.load():
        is_slice = entry.after < entry.until
        records = slices[entry.after] if is_slice else Slice.empty(entry.after, entry.until)
        assert again.relearn(entry, records)
    assert again.settle() == 0
    for name, value in lineage.learner.arrays().items():
        np.testing.assert_array_equal(again.learner.arrays()[name], value, err_msg=name)
    delta_log.close()


def test_a_new_space_is_held_to_nothing_of_the_old_one(tmp_path: Path, settings: TrainerSettings, shop: object) -> None:
    delta_log = DeltaLog(tmp_path / "deltas.db", "main", settings.dimension)
    lineage = Lineage(settings.model_copy(update={"anchor": 1.0}), delta_log, Checkpoints(tmp_path / "checkpoints"))
    lineage.learn(shop.visits(0, 6))
    lineage.send_drifted()
    assert lineage.learner.anchor.is_held
    lineage.rotate("asked for")
    assert not lineage.learner.anchor.is_held
    delta_log.close()
