from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.index.write_ahead_log import WriteAheadLog
from headrace.runtime.errors import UnavailableError

PAYLOADS = [b"first", b"", b"the third one is longer", b"4"]


def written(directory: Path, payloads: list[bytes], file_bytes: int = 1 << 20) -> Path:
    log = WriteAheadLog(directory, file_bytes)
    assert list(log.recover(after=0)) == []
    for payload in payloads:
        log.append([payload])
    log.close()
    return sorted(directory.glob("*.wal"))[0]


def recovered(directory: Path, after: int = 0) -> list[tuple[int, bytes]]:
    log = WriteAheadLog(directory)
    records = list(log.recover(after))
    log.close()
    return records


def numbered(payloads: list[bytes]) -> list[tuple[int, bytes]]:
    return list(enumerate(payloads, 1))


def test_records_come_back_in_order_after_the_one_named(tmp_path: Path) -> None:
    written(tmp_path, PAYLOADS)
    assert recovered(tmp_path) == numbered(PAYLOADS)
    assert recovered(tmp_path, after=2) == numbered(PAYLOADS)[2:]


def test_a_tail_torn_at_any_byte_loses_the_torn_record_only(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", PAYLOADS).read_bytes()
    ends = [len(whole)]
    for payload in reversed(PAYLOADS):
        ends.insert(0, ends[0] - 16 - len(payload))
    for size in range(len(whole)):
        directory = tmp_path / str(size)
        directory.mkdir()
        (directory / f"{1:020d}.wal").write_bytes(whole[:size])
        kept = [payload for payload, end in zip(PAYLOADS, ends[1:], strict=True) if end <= size]
        log = WriteAheadLog(directory)
        assert list(log.recover(after=0)) == numbered(kept), size
        log.append([b"next"])
        log.close()
        assert recovered(directory) == numbered([*kept, b"next"]), size


def test_a_flipped_bit_anywhere_in_the_last_record_cuts_it(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", PAYLOADS).read_bytes()
    for place in range(len(whole) - 17, len(whole)):
        directory = tmp_path / str(place)
        directory.mkdir()
        flipped = bytearray(whole)
        flipped[place] ^= 4
        (directory / f"{1:020d}.wal").write_bytes(flipped)
        assert recovered(directory) == numbered(PAYLOADS[:3]), place


def test_a_cut_is_logged_with_what_was_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, PAYLOADS)
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        recovered(tmp_path)
    [record] = caplog.records
    assert (record.getMessage(), vars(record)["cut_bytes"]) == ("log_cut", 16)


def test_files_rotate_at_their_size_and_recover_as_one(tmp_path: Path) -> None:
    payloads = [bytes([number]) * 100 for number in range(50)]
    written(tmp_path, payloads, file_bytes=1000)
    assert len(list(tmp_path.glob("*.wal"))) > 5
    assert recovered(tmp_path) == numbered(payloads)


def test_files_after_a_damaged_one_are_set_aside(tmp_path: Path) -> None:
    payloads = [bytes([number]) * 100 for number in range(50)]
    written(tmp_path, payloads, file_bytes=1000)
    second = sorted(tmp_path.glob("*.wal"))[1]
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    kept = recovered(tmp_path)
    assert kept == numbered(payloads)[: len(kept)]
    assert int(second.stem) <= len(kept) < 50
    assert recovered(tmp_path) == kept
    assert list(tmp_path.glob("*.cut"))


def test_only_files_that_a_snapshot_covers_are_deleted(tmp_path: Path) -> None:
    payloads = [bytes([number]) * 100 for number in range(50)]
    log = WriteAheadLog(tmp_path, 1000)
    list(log.recover(after=0))
    for payload in payloads:
        log.append([payload])
    log.delete_through(20)
    log.close()
    left = recovered(tmp_path, after=20)
    assert left == numbered(payloads)[20:]
    assert min(int(path.stem) for path in tmp_path.glob("*.wal")) > 10


def test_a_log_whose_beginning_is_lost_says_so_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    payloads = [bytes([number]) * 100 for number in range(50)]
    written(tmp_path, payloads, file_bytes=1000).unlink()
    with caplog.at_level(logging.ERROR):
        left = recovered(tmp_path)
    assert left == numbered(payloads)[-len(left) :]
    assert [record.getMessage() for record in caplog.records] == ["log_gap"]


def test_a_group_is_one_append(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path)
    list(log.recover(after=0))
    log.append([b"a", b"b"])
    log.rotate()
    log.rotate()
    log.append([b"c"])
    log.close()
    assert recovered(tmp_path) == numbered([b"a", b"b", b"c"])
    assert log.last == 3


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let files grow beyond `size`, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_the_disk_refuses_takes_nothing_and_a_later_one_works(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path)
    list(log.recover(after=0))
    log.append([b"a" * 100])
    with largest_file(300), pytest.raises(UnavailableError, match="write-ahead log"):
        log.append([b"b" * 500])
    assert log.last == 1
    log.append([b"c"])
    log.close()
    assert recovered(tmp_path) == numbered([b"a" * 100, b"c"])
