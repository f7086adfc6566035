"""Learning, journalling and finding the state again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.model.candidates import FEATURE_SCHEMA
from headrace.model.text.encoder import TextEncoder
from headrace.runtime.errors import FailedPreconditionError
from headrace.trainer.checkpoint import Checkpoints
from headrace.trainer.delta_log import DeltaLog
from headrace.trainer.deltas import vectors_digest
from headrace.trainer.lineage import Lineage
from headrace.trainer.ranker_learner import Groups
from headrace.trainer.records import Slice
from headrace.trainer.settings import TrainerSettings


def _lineage(folder: Path, settings: TrainerSettings) -> tuple[Lineage, DeltaLog]:
    delta_log = DeltaLog(folder / "deltas.db", "main", settings.dimension)
    return Lineage(settings, delta_log, Checkpoints(folder / "checkpoints")), delta_log


def _slices(shop: object, count: int) -> list[Slice]:
    found, offset = [], 0
    for number in range(count):
        records = shop.visits(number, 6, after=offset)
        products = shop.products(1) if number == 0 else ()
        found.append(replace(records, products=products))
        offset = records.until
    return found


def _by_range(slices: list[Slice]) -> dict[tuple[int, int], Slice]:
    return {(records.after, records.until): records for records in slices}


def _recover(lineage: Lineage, slices: list[Slice]) -> list[bool]:
    known = _by_range(slices)
    same = [
        lineage.relearn(entry, known.get((entry.after, entry.until), Slice.empty(entry.after, entry.until)))
        for entry in lineage.load()
    ]
    lineage.settle()
    return same


@pytest.mark.parametrize("saved", [None, 0, 2])
def test_a_crash_is_followed_by_the_same_state_and_no_new_delta(
    tmp_path: Path, settings: TrainerSettings, shop: object, saved: int | None
) -> None:
    slices = _slices(shop, 4)
    lineage, delta_log = _lineage(tmp_path, settings)
    for number, records in enumerate(slices):
        lineage.learn(records)
        if number == saved:
            lineage.checkpoint()
    lineage.send_drifted()
    before, look = delta_log.last_sequence, lineage.look()
    delta_log.close()

    again, delta_log = _lineage(tmp_path, settings)
    assert all(_recover(again, slices))
    assert delta_log.last_sequence == before
    assert again.standing.offset == slices[-1].until
    assert again.look().digest == look.digest
    assert vectors_digest(delta_log.live()) == again.look().digest
    np.testing.assert_array_equal(
        again.learner.item_vectors(np.arange(shop.items)), lineage.learner.item_vectors(np.arange(shop.items))
    )
    delta_log.close()


@pytest.mark.parametrize("saved", [0, 2])
def test_a_crash_after_a_publish_leaves_every_part_as_it_was(
    tmp_path: Path, settings: TrainerSettings, shop: object, saved: int
) -> None:
    slices = _slices(shop, 4)
    chosen = settings.model_copy(update={"gauge_windows": 3, "gauge_stretches": 2, "expire_days": 0.2})
    lineage, delta_log = _lineage(tmp_path, chosen)
    for number, records in enumerate(slices):
        lineage.learn(records)
        if number != 1:
            lineage.send_drifted()
        if number == saved:
            lineage.checkpoint()
    delta_log.close()

    again, delta_log = _lineage(tmp_path, chosen)
    assert all(_recover(again, slices))
    assert (again.standing.gauge, again.standing.rate) == (lineage.standing.gauge, lineage.standing.rate)
    assert again.standing.gauge is not None
    before, after = lineage.learner.arrays(), again.learner.arrays()
    assert {"gauge.fresh_B", "rate_control.losses", "admission.met_N"} <= before.keys() == after.keys()
    # arrays that grow by doubling may have more room than was needed
    for name, value in before.items():
        shared = min(len(value), len(after[name]))
        np.testing.assert_array_equal(after[name][:shared], value[:shared], err_msg=name)
        assert not after[name][shared:].any(), name
        assert not value[shared:].any(), name
    delta_log.close()


def test_a_state_that_comes_out_otherwise_is_sent(tmp_path: Path, settings: TrainerSettings, shop: object) -> None:
    slices = _slices(shop, 3)
    lineage, delta_log = _lineage(tmp_path, settings)
    for records in slices:
        lineage.learn(records)
    before = delta_log.last_sequence
    delta_log.close()

    # another seed stands for hardware that adds up in another order
    other, delta_log = _lineage(tmp_path, settings.model_copy(update={"seed": 5}))
    assert not all(_recover(other, slices))
    assert delta_log.last_sequence > before
    assert vectors_digest(delta_log.live()) == other.look().digest
    delta_log.close()

    # what was settled is found again as it is
    again, delta_log = _lineage(tmp_path, settings.model_copy(update={"seed": 5}))
    last = delta_log.last_sequence
    _recover(again, slices)
    assert delta_log.last_sequence == last
    delta_log.close()


def test_a_product_is_sent_before_the_events_of_its_slice(
    tmp_path: Path, settings: TrainerSettings, shop: object
) -> None:
    lineage, delta_log = _lineage(tmp_path, settings)
    [records] = _slices(shop, 1)
    assert lineage.learn_products(records) == shop.items
    assert delta_log.last_sequence == shop.items
    assert (lineage.standing.offset, lineage.standing.products_offset) == (0, records.until)
    lineage.learn(records)
    assert [entry.kind for entry in delta_log.journal(0)] == ["products", "events"]
    delta_log.close()


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path: Path, settings: TrainerSettings, shop: object) -> None:
    lineage, delta_log = _lineage(tmp_path, settings)
    lineage.learn(_slices(shop, 1)[0])
    lineage.checkpoint()
    other = Lineage(settings.model_copy(update={"blocks": 2}), delta_log, Checkpoints(tmp_path / "checkpoints"))
    with pytest.raises(FailedPreconditionError, match="blocks"):
        other.load()
    delta_log.close()


def test_a_checkpoint_over_another_text_encoder_is_refused(
    tmp_path: Path, settings: TrainerSettings, shop: object, lengths: TextEncoder
) -> None:
    lineage, delta_log = _lineage(tmp_path, settings)
    lineage.learn(_slices(shop, 1)[0])
    lineage.checkpoint()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(FailedPreconditionError, match="over the text encoder ngrams, the settings choose lengths 0"):
        Lineage(settings, delta_log, checkpoints, lengths).load()
    delta_log.close()


def test_a_lineage_over_a_pre_trained_encoder_finds_its_state_again(
    tmp_path: Path, settings: TrainerSettings, shop: object, lengths: TextEncoder
) -> None:
    slices = _slices(shop, 2)
    delta_log = DeltaLog(tmp_path / "deltas.db", "main", settings.dimension)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    lineage = Lineage(settings, delta_log, checkpoints, lengths)
    lineage.learn(slices[0])
    lineage.checkpoint()
    lineage.learn(slices[1])
    again = Lineage(settings, delta_log, checkpoints, lengths)
    assert all(again.relearn(entry, slices[1]) for entry in again.load())
    assert again.look().digest == lineage.look().digest
    delta_log.close()


def test_the_journal_shrinks_to_what_two_checkpoints_need(
    tmp_path: Path, settings: TrainerSettings, shop: object
) -> None:
    lineage, delta_log = _lineage(tmp_path, settings)
    for records in _slices(shop, 4):
        lineage.learn(records)
        lineage.checkpoint()
    assert len(delta_log.journal(0)) == 1
    delta_log.close()


def test_other_features_make_the_ranker_begin_anew_and_nothing_else(
    tmp_path: Path, settings: TrainerSettings, shop: object
) -> None:
    slices = _slices(shop, 2)
    lineage, delta_log = _lineage(tmp_path, settings)
    for records in slices:
        lineage.learn(records)
    lineage.learn_rows(Groups.empty(), 17)
    lineage.checkpoint()
    [manifest] = (tmp_path / "checkpoints").glob("*.json")
    manifest.write_text(manifest.read_text().replace(FEATURE_SCHEMA, "of another day"))
    again = Lineage(settings, delta_log, Checkpoints(tmp_path / "checkpoints"))
    assert again.load() == []
    assert (again.standing.offset, again.standing.rows_offset) == (slices[-1].until, 0)
    assert again.look().digest == lineage.look().digest
    delta_log.close()
