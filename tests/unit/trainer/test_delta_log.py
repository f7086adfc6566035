"""Deltas and journal: durable together, contiguous, and never ambiguous."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from headrace.runtime.errors import FailedPreconditionError
from headrace.trainer.delta_log import BATCH_ROWS, DeltaLog, Entry
from headrace.trainer.deltas import Deltas, vectors_digest


def _deltas(ordinals: list[int], value: float = 1.0, tombstones: list[int] | None = None) -> Deltas:
    gone = np.array(tombstones or [0] * len(ordinals), np.uint8)
    vectors = np.full((len(ordinals), 2), value, np.float32) * (1 - gone[:, None])
    return Deltas(np.array(ordinals, np.uint32), vectors.astype(np.float32), gone)


def _entry(number: int, kind: str = "events") -> Entry:
    return Entry(number, kind, number - 1, number, f"digest{number}")


@pytest.fixture
def log(tmp_path: Path):
    log = DeltaLog(tmp_path / "deltas.db", "main", 2)
    yield log
    log.close()


def _sent(log: DeltaLog, after: int = 0) -> list[tuple[int, list[int]]]:
    found = []
    while (batch := log.batch_after(after)) is not None:
        found.append((batch.first_sequence, np.frombuffer(batch.ordinals, "<u4").tolist()))
        after = batch.last_sequence
    return found


def test_sequences_are_contiguous_over_commits(log: DeltaLog) -> None:
    assert log.commit(_entry(1), _deltas([4, 5]), log_offset=10) == 2
    assert log.commit(_entry(2), _deltas([5]), log_offset=20) == 3
    assert _sent(log) == [(1, [4, 5]), (3, [5])]


def test_reading_can_begin_inside_a_batch(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas([4, 5, 6]), log_offset=10, traceparent="t", append_time_us=7)
    batch = log.batch_after(1)
    assert batch is not None
    assert (batch.first_sequence, batch.rows, batch.last_sequence) == (2, 2, 3)
    assert np.frombuffer(batch.ordinals, "<u4").tolist() == [5, 6]
    assert len(batch.vectors) == 2 * 2 * 4
    assert (batch.log_offset, batch.traceparent, batch.append_time_us) == (10, "t", 7)


def test_what_is_gone_is_known_over_spaces_and_restarts_until_it_comes_back(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path / "deltas.db", "main", 2)
    log.commit(_entry(1), _deltas([4, 5, 6, 7]), log_offset=10)
    assert log.gone().tolist() == []
    log.commit(_entry(2), _deltas([4, 6, 7], tombstones=[1, 1, 1]), log_offset=20)
    log.begin_space([])
    log.commit(_entry(3), _deltas([5, 6], tombstones=[1, 0]), log_offset=30)
    log.close()
    again = DeltaLog(tmp_path / "deltas.db", "main", 2)
    assert again.gone().tolist() == [4, 5, 7]
    again.close()


def test_many_rows_travel_in_several_batches(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas(list(range(BATCH_ROWS + 5))), log_offset=1)
    assert [(first, len(rows)) for first, rows in _sent(log)] == [(1, BATCH_ROWS), (BATCH_ROWS + 1, 5)]


def test_a_slice_without_deltas_is_journalled(log: DeltaLog) -> None:
    log.commit(_entry(1), Deltas.empty(2), log_offset=3)
    assert (log.last_sequence, _sent(log), log.journal(0)) == (0, [], [_entry(1)])


def test_an_entry_is_journalled_with_its_deltas_or_not_at_all(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas([1]), log_offset=1)
    with pytest.raises(sqlite3.IntegrityError):
        log.commit(_entry(1), _deltas([2]), log_offset=2)
    assert (log.last_sequence, len(log.journal(0))) == (1, 1)


def test_the_newest_row_of_an_item_is_the_one_that_lives(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas([1, 2, 3]), log_offset=1)
    log.commit(_entry(2), _deltas([2, 3], 5.0, [0, 1]), log_offset=2)
    live = log.live()
    assert (live.ordinals.tolist(), live.vectors[:, 0].tolist()) == ([1, 2], [1.0, 5.0])


def test_compaction_keeps_what_lives_and_what_is_not_acknowledged(log: DeltaLog) -> None:
    for number in range(1, 6):
        log.commit(_entry(number), _deltas([1, number], float(number)), log_offset=number)
    before = vectors_digest(log.live())
    assert log.compact(log.space, acknowledged=6, keep_rows=3)
    assert (log.horizon, _sent(log, 6)) == (6, [(7, [1, 4]), (9, [1, 5])])
    assert vectors_digest(log.live()) == before


def test_little_is_not_compacted(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas([1, 2]), log_offset=1)
    assert not log.compact(log.space, acknowledged=2, keep_rows=3)


def test_what_was_folded_cannot_be_sent_one_by_one(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas([1, 2]), log_offset=1)
    log.compact(log.space, acknowledged=2, keep_rows=0)
    with pytest.raises(FailedPreconditionError, match="horizon"):
        log.batch_after(1)


def test_a_new_space_begins_with_everything_that_lives(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas([3, 1, 2], tombstones=[0, 0, 1]), log_offset=9)
    log.compact(log.space, acknowledged=3, keep_rows=0)
    before, digest = log.space, vectors_digest(log.live())
    space = log.begin_space(taken=[])
    assert space != before
    assert log.bounds() == (space, 0, 2)
    assert _sent(log) == [(1, [1, 3])]
    assert vectors_digest(log.live()) == digest
    batch = log.batch_after(0)
    assert batch is not None
    assert batch.log_offset == 9


def test_a_name_that_is_taken_is_not_used(log: DeltaLog) -> None:
    lineage, _, generation = log.space.rpartition("-")
    taken = [f"{lineage}-{int(generation) + 1}", f"{lineage}-{int(generation) + 2}"]
    assert log.begin_space(taken) == f"{lineage}-{int(generation) + 3}"


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path / "deltas.db", "main", 2)
    log.commit(_entry(1), _deltas([1, 2]), log_offset=1)
    space = log.space
    log.close()
    again = DeltaLog(tmp_path / "deltas.db", "main", 2)
    assert (again.bounds(), again.journal(0)) == ((space, 0, 2), [_entry(1)])
    again.close()


def test_another_width_is_refused(tmp_path: Path) -> None:
    DeltaLog(tmp_path / "deltas.db", "main", 2).close()
    with pytest.raises(FailedPreconditionError, match="width 2"):
        DeltaLog(tmp_path / "deltas.db", "main", 3)


def test_the_journal_forgets_what_checkpoints_hold(log: DeltaLog) -> None:
    for number in range(1, 4):
        log.commit(_entry(number), Deltas.empty(2), log_offset=number)
    log.forget_journal(2)
    assert [entry.number for entry in log.journal(0)] == [3]


def test_the_digest_is_that_of_ordinal_and_vector_bytes() -> None:
    import hashlib
    import struct

    expected = hashlib.sha256(struct.pack("<Iff", 1, 2.0, 2.0) + struct.pack("<Iff", 7, 2.0, 2.0)).hexdigest()
    assert vectors_digest(_deltas([1, 7], 2.0)) == expected


def test_a_new_space_is_journalled_with_its_rows_or_not_at_all(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas([1, 2]), log_offset=1)
    space = log.begin_space((), "asked for", _entry(2, "rotate"))
    assert [entry.kind for entry in log.journal(0)] == ["events", "rotate"]
    with pytest.raises(sqlite3.IntegrityError):
        log.begin_space((), "asked for", _entry(2, "rotate"))
    assert (log.space, log.bounds(), len(log.spaces())) == (space, (space, 0, 2), 2)


def test_what_one_space_acknowledged_says_nothing_of_the_next(log: DeltaLog) -> None:
    log.commit(_entry(1), _deltas([1, 2, 3]), log_offset=1)
    before = log.space
    log.begin_space(())
    assert not log.compact(before, acknowledged=3, keep_rows=0)
    assert log.horizon == 0


def test_spaces_are_remembered_until_they_are_forgotten(tmp_path: Path, log: DeltaLog) -> None:
    names = [log.space, log.begin_space(()), log.begin_space(())]
    assert log.spaces() == names
    log.forget_space(names[0])
    again = DeltaLog(tmp_path / "deltas.db", "main", 2)
    assert again.spaces() == names[1:]
    again.close()


def test_a_space_is_of_the_form_that_it_was_begun_with(tmp_path: Path) -> None:
    path = tmp_path / "deltas.db"
    log = DeltaLog(path, "main", 2, "any length")
    assert not log.is_of_other_form
    log.close()
    log = DeltaLog(path, "main", 2, "unit length")
    assert log.is_of_other_form
    log.begin_space(())
    assert not log.is_of_other_form
    log.close()


def test_a_log_of_before_forms_were_kept_is_of_another_form(tmp_path: Path) -> None:
    path = tmp_path / "deltas.db"
    DeltaLog(path, "main", 2, "unit length").close()
    db = sqlite3.connect(path)
    db.execute("DROP TABLE spaces")
    db.close()
    log = DeltaLog(path, "main", 2, "unit length")
    assert (log.is_of_other_form, log.spaces()) == (True, [log.space])
    log.close()
