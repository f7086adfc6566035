"""Whatever a file of ours holds by now: what was written, or a CorruptDataError, and never anything else.

A checksum finds bytes that changed by themselves; what passes it was written so, by another build or another hand.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.cli.moving.log_copy import LogCopy
from headrace.cli.moving.state_files import read_manifest, write_manifest
from headrace.cli.suite_file import ServiceEntry, read_entries, suite_file, write_entries
from headrace.feature_store.column_file import read_columns, write_columns
from headrace.feature_store.facts import UserAct
from headrace.feature_store.fold import State
from headrace.feature_store.row_columns import RowColumns
from headrace.feature_store.rules import Rules
from headrace.feature_store.snapshot import Snapshots
from headrace.feature_store.view_registry import register
from headrace.index import snapshot as index_snapshot
from headrace.index.batch import Batch, Part
from headrace.index.flat_segment import FlatSegment
from headrace.index.log_record import Activate, Create, decoded, encoded
from headrace.index.shard_file import check_shard
from headrace.index.write_ahead_log import WriteAheadLog
from headrace.model.events import EventCode
from headrace.runtime.confirmations import Confirmations
from headrace.runtime.errors import CorruptDataError, FailedPreconditionError, NotFoundError
from headrace.runtime.privacy import UNKEYED
from headrace.runtime.settings import SettingsError
from headrace.runtime.shards import WHOLE
from headrace.trainer.checkpoint import Checkpoints
from tests.fuzz.damage import check_tells, damaged
from tests.fuzz.profile import fuzz


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is refused is logged, thousands of times."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def read(data: bytes, reader: Callable[[Path], object]) -> object | None:
    """What a reader makes of a file of these bytes; None where it says that they are corrupt."""
    with folder() as place:
        path = place / "file"
        path.write_bytes(data)
        try:
            return reader(path)
        except CorruptDataError:
            return None


def written(writer: Callable[[Path], object]) -> bytes:
    with folder() as place:
        writer(place / "file")
        return (place / "file").read_bytes()


def shop() -> State:
    """A small state with all that a snapshot may hold, an open visit among it."""
    state = State(Rules(row_sample_rate=1.0))
    for offset in range(1, 30):
        code = EventCode.PURCHASE if offset % 3 else EventCode.VIEW
        kind = "purchase-complete" if offset % 3 else "detail-page-view"
        act = UserAct(offset, kind, code, f"u:{offset % 3}", offset * 10**9, 1, [offset % 5, 7], False, "v:phone")
        groups.extend(state.apply(act))
    return state


groups: list[Any] = []
STATE = shop()
ROWS = RowColumns.of(groups)
assert len(ROWS)
COLUMNS = written(lambda path: write_columns(path, ROWS.columns()))


@fuzz
@given(damaged(COLUMNS))
@example(COLUMNS)
@example(b"headrace-columns-1\n" + hashlib.sha256(b"").digest())
def test_any_bytes_as_a_file_of_columns(data: bytes) -> None:
    found = read(data, read_columns)
    assert (found is not None) == (data == COLUMNS)


@fuzz
@given(damaged(COLUMNS[51:]))
# a header that Python's tokenizer does not get through, of an array whose own checksum is read only after it
@example(COLUMNS[51:].replace(b"'shape': (54, 58)", b"'shape': (\0\0\0\0\0()"))
def test_any_bytes_with_their_checksum_as_a_file_of_columns(body: bytes) -> None:
    read(COLUMNS[:19] + hashlib.sha256(body).digest() + body, read_columns)


ARRAYS = st.sampled_from(
    [
        np.empty(0, np.int64),
        np.arange(3, dtype=np.uint8),
        np.zeros((2, 2), np.float32),
        np.array(["a", "b"]),
        np.array([-1, 1 << 40], np.int64),
        np.float64(7.0),
        np.frombuffer(b'{"a": [1]}', np.uint8),
        np.array([np.nan, np.inf], np.float32),
    ]
)


@fuzz
@given(st.sampled_from(sorted(ROWS.columns())), ARRAYS | st.none())
def test_rows_with_any_other_column_are_corrupt_or_whole(name: str, column: np.ndarray | None) -> None:
    columns = {**ROWS.columns(), name: column}
    if column is None:
        del columns[name]
    try:
        found = RowColumns.restored(columns)
    except CorruptDataError:
        return
    # they can be cut and sent
    assert len(found.without([0])) == len(found) - 1
    assert sum(len(part) for part in found.parts(1_000)) == len(found)


def snapshot_bytes() -> tuple[str, bytes]:
    with folder() as place:
        Snapshots(place).write(STATE.copy())
        (path,) = place.iterdir()
        return path.name, path.read_bytes()


SNAPSHOT_NAME, SNAPSHOT = snapshot_bytes()
SNAPSHOT_COLUMNS = read(SNAPSHOT, read_columns)
assert isinstance(SNAPSHOT_COLUMNS, dict)


@fuzz
@given(damaged(SNAPSHOT))
@example(SNAPSHOT)
def test_a_damaged_snapshot_is_passed_over(data: bytes) -> None:
    with folder() as place:
        (place / SNAPSHOT_NAME).write_bytes(data)
        snapshots = Snapshots(place)
        state = snapshots.newest(Rules(row_sample_rate=1.0))
    assert state.offset == (STATE.offset if data == SNAPSHOT else 0)
    assert snapshots.was_refused == (data != SNAPSHOT)


@fuzz
@given(st.sampled_from(sorted(SNAPSHOT_COLUMNS)), ARRAYS | st.none())
def test_a_snapshot_with_any_other_column_is_a_state_or_passed_over(name: str, column: np.ndarray | None) -> None:
    columns = {**SNAPSHOT_COLUMNS, name: column}
    if column is None:
        del columns[name]
    with folder() as place:
        write_columns(place / SNAPSHOT_NAME, columns)
        snapshots = Snapshots(place)
        state = snapshots.newest(Rules(row_sample_rate=1.0))
    assert state.offset == (0 if snapshots.was_refused else STATE.offset)


BATCH = Batch("main", 5, *(np.array([1, 2], np.uint32), np.ones((2, 3), np.float32), np.zeros(2, np.bool_)), 9)
PART = Batch("main", 5, BATCH.ordinals, BATCH.vectors_ND, BATCH.tombstones_N, 9, Part(np.array([0, 3]), 6))
ENTRIES = [encoded(entry) for entry in (BATCH, PART, Create("main", 3), Activate("main"))]


@fuzz
@given(damaged(*ENTRIES))
@example(struct.pack("<BB", 1, 0) + struct.pack("<qIIq", 0, 0xFFFFFFFF, 0xFFFFFFFF, 0))
def test_any_bytes_as_a_record_of_the_index(data: bytes) -> None:
    try:
        entry = decoded(data)
    except CorruptDataError:
        return
    if isinstance(entry, Batch):
        assert entry.vectors_ND.shape[0] == len(entry.ordinals) == len(entry.tombstones_N)


def log_bytes(payloads: list[bytes]) -> bytes:
    with folder() as place:
        log = WriteAheadLog(place)
        assert list(log.recover(0)) == []
        log.append(payloads)
        log.close()
        (path,) = place.iterdir()
        return path.read_bytes()


LOG = log_bytes([b"one", b"", b"three" * 20])


@fuzz
@given(damaged(LOG))
@example(LOG)
@example(LOG[:8] + struct.pack("<IIQ", 0xFFFFFFF0, 0, 1) + b"short")
@example(LOG[:8] + struct.pack("<IIQ", 0, zlib.crc32((2**64 - 1).to_bytes(8, "little")), 2**64 - 1))
def test_any_bytes_as_a_write_ahead_log(data: bytes) -> None:
    """It is cut at the first record that is not whole, and goes on."""
    with folder() as place:
        (place / f"{1:020d}.wal").write_bytes(data)
        log = WriteAheadLog(place)
        before = list(log.recover(0))
        log.append([b"new"])
        log.close()
        again = WriteAheadLog(place)
        assert list(again.recover(0)) == [*before, (log.last, b"new")]
        again.close()
    if data == LOG:
        assert before == [(1, b"one"), (2, b""), (3, b"three" * 20)]


def index_snapshot_at(place: Path) -> Path:
    segment = FlatSegment(3)
    segment.write(BATCH.change())
    space = index_snapshot.Snapshotted("main", segment, BATCH.ordinals, 6, 9, index_snapshot.RollingHash())
    index_snapshot.Snapshots(place).write(4, "main", [space])
    return place / f"{4:020d}"


with folder() as _place:
    MANIFEST = (index_snapshot_at(_place) / "manifest.json").read_bytes()
    INDEX_ROWS = (index_snapshot_at(_place) / "space-0.rows").read_bytes()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


def with_any_value(whole: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A JSON object with one field of it, or of an object in it, anything else or gone."""

    def changed(path: tuple[str, ...], value: Any) -> bytes:
        copy = json.loads(json.dumps(whole))
        *parents, last = path
        holder = copy
        for name in parents:
            holder = holder[name]
        if value == "gone":
            del holder[last]
        else:
            holder[last] = value
        return json.dumps(copy).encode()

    return st.builds(changed, st.sampled_from(list(_paths(whole))), JSON | st.just("gone"))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield (*path, name)
        yield from _paths(inner, (*path, name))


NESTED = b"[" * 100_000
SEALED = json.loads(json.loads(MANIFEST)["manifest"])


def sealed(body: bytes) -> bytes:
    text = body.decode()
    return json.dumps({"manifest": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def check_index_snapshot(manifest: bytes, rows: bytes = INDEX_ROWS) -> bool:
    """Whether it can be read."""
    with folder() as place:
        snapshot = place / f"{4:020d}"
        snapshot.mkdir()
        (snapshot / "manifest.json").write_bytes(manifest)
        (snapshot / "space-0.rows").write_bytes(rows)
        found = list(index_snapshot.Snapshots(place).newest())
        try:
            for told, at in found:
                for base in told.spaces:
                    assert sum(len(part) for part in index_snapshot.read_rows(at, base)) == base.rows
        except (CorruptDataError, FileNotFoundError):
            return False
        return bool(found)


@fuzz
@given(damaged(MANIFEST))
@example(NESTED)
@example(b'{"manifest": 7, "sha256": []}')
@example(b"[]")
def test_any_bytes_as_the_manifest_of_an_index(data: bytes) -> None:
    check_index_snapshot(data)


@fuzz
@given(with_any_value(SEALED))
def test_any_value_in_the_manifest_of_an_index(body: bytes) -> None:
    check_index_snapshot(sealed(body))


@fuzz
@given(damaged(INDEX_ROWS))
def test_any_bytes_as_rows_of_an_index(rows: bytes) -> None:
    assert check_index_snapshot(MANIFEST, rows) == (rows == INDEX_ROWS)


def checkpoint_files() -> dict[str, bytes]:
    with folder() as place:
        Checkpoints(place).save(3, {"step": 3}, {"values": np.arange(5, dtype=np.float32)})
        return {path.suffix: path.read_bytes() for path in place.iterdir()}


CHECKPOINT = checkpoint_files()


@fuzz
@given(
    damaged(CHECKPOINT[".json"]) | with_any_value(json.loads(CHECKPOINT[".json"])),
    st.just(CHECKPOINT[".safetensors"]) | damaged(CHECKPOINT[".safetensors"]),
    st.booleans(),
)
@example(NESTED, CHECKPOINT[".safetensors"], False)
@example(b"[]", CHECKPOINT[".safetensors"], False)
def test_any_bytes_as_a_checkpoint(manifest: bytes, arrays: bytes, is_summed: bool) -> None:
    with folder() as place:
        name = f"{3:012d}"
        if is_summed:
            manifest = json.dumps({"entry": 3, "facts": {}, "sha256": hashlib.sha256(arrays).hexdigest()}).encode()
        (place / f"{name}.json").write_bytes(manifest)
        (place / f"{name}.safetensors").write_bytes(arrays)
        found = Checkpoints(place).newest()
        assert found is None or isinstance(found.entry, int)
        try:
            Checkpoints(place).at(3)
        except CorruptDataError:
            assert found is None


def suite_bytes() -> bytes:
    with folder() as place:
        write_entries(place, {"ingest": ServiceEntry("127.0.0.1:7", 12, "ingest.log")})
        return suite_file(place).read_bytes()


SUITE = suite_bytes()


@fuzz
@given(damaged(SUITE) | with_any_value(json.loads(SUITE)))
@example(NESTED)
@example(b"\xff")
@example(b"[]")
@example(b'{"services": {"ingest": {"address": 7, "pid": "x", "log": null}}}')
def test_any_bytes_as_suite_json(data: bytes) -> None:
    with folder() as place:
        suite_file(place).write_bytes(data)
        try:
            entries = read_entries(place)
        except CorruptDataError as error:
            check_tells(error, "suite.json")
            return
    for entry in entries.values():
        assert (type(entry.address), type(entry.pid), type(entry.log)) == (str, int, str)


def backup_bytes() -> bytes:
    with folder() as place:
        (place / "state").write_bytes(b"kept")
        write_manifest(place, "1.0", LogCopy(3, 3, "ab"))
        return (place / "backup.json").read_bytes()


BACKUP = backup_bytes()


@fuzz
@given(damaged(BACKUP) | with_any_value(json.loads(BACKUP)), st.just(b"kept") | st.binary(max_size=4))
@example(NESTED, b"kept")
@example(b"7", b"kept")
@example(BACKUP.replace(b'"state"', b'"sta\\u0000te"'), b"kept")
@example(BACKUP.replace(b'"state"', b'"../../etc/passwd"'), b"kept")
def test_any_bytes_as_the_manifest_of_a_backup(manifest: bytes, state: bytes) -> None:
    with folder() as place:
        (place / "state").write_bytes(state)
        (place / "backup.json").write_bytes(manifest)
        try:
            found = read_manifest(place)
        except (CorruptDataError, NotFoundError):
            return
    assert isinstance(found.log, LogCopy)
    assert set(found.files) <= {"state"}


WAITING = json.dumps({"e1": {"offset": 4, "erased": {"people": 1}}}).encode()


@fuzz
@given(damaged(WAITING) | with_any_value(json.loads(WAITING)))
@example(NESTED)
def test_any_bytes_as_the_words_that_wait_to_be_said(data: bytes) -> None:
    waiting = read(data, lambda path: Confirmations(path, "trainer", UNKEYED))
    if isinstance(waiting, Confirmations):
        waiting.are_due(7)


@fuzz
@given(damaged(b'{"item_windows@1": "abc"}') | JSON.map(lambda value: json.dumps(value).encode()))
@example(NESTED)
@example(b"\xff")
def test_any_bytes_as_the_register_of_views(data: bytes) -> None:
    def registered(path: Path) -> None:
        # a definition of another hash
        with suppress(SettingsError):
            register(path, ())

    read(data, registered)


@fuzz
@given(damaged(b"0/1", b"1/2"))
@example(b"\xff")
def test_any_bytes_as_the_shard_of_a_folder(data: bytes) -> None:
    with folder() as place:
        (place / "shard").write_bytes(data)
        try:
            check_shard(place, WHOLE)
        except (CorruptDataError, FailedPreconditionError) as error:
            check_tells(error, str(place))
