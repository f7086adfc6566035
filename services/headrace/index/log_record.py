"""What the write-ahead log holds: every accepted change of the index, as bytes."""

# N rows, D dimension

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from headrace.index.batch import Batch, Part
from headrace.runtime.errors import CorruptDataError

_APPLY, _CREATE, _ACTIVATE, _DROP, _APPLY_PART, _ADOPT = 1, 2, 3, 4, 5, 6
# kind, length of the space's name; then first_sequence or dimension, rows, columns, log offset
_HEAD = struct.Struct("<BB")
_NUMBERS = struct.Struct("<qIIq")
_SENT_ROWS = struct.Struct("<I")


@dataclass(frozen=True)
class Create:
    space: str
    dimension: int


@dataclass(frozen=True)
class Activate:
    space: str


@dataclass(frozen=True)
class Drop:
    space: str


@dataclass(frozen=True)
class Adopt:
    """A space was taken over from a replica; its rows are in a snapshot that is written next."""

    space: str


Entry = Batch | Create | Activate | Drop
_NAMED = {Activate: _ACTIVATE, Drop: _DROP, Adopt: _ADOPT}


def encoded(entry: Entry | Adopt) -> bytes:
    """The bytes of an entry."""
    if isinstance(entry, Batch):
        return b"".join(_batch_parts(entry))
    if isinstance(entry, Create):
        return _head(_CREATE, entry.space) + _NUMBERS.pack(entry.dimension, 0, 0, 0)
    return _head(_NAMED[type(entry)], entry.space)


def _batch_parts(batch: Batch) -> list[bytes]:
    rows, columns = batch.vectors_ND.shape
    numbers = _NUMBERS.pack(batch.first_sequence, rows, columns, batch.log_offset)
    parts = [numbers, batch.ordinals.tobytes(), batch.vectors_ND.tobytes(), batch.tombstones_N.tobytes()]
    if batch.part is None:
        return [_head(_APPLY, batch.space), *parts]
    places = (_SENT_ROWS.pack(batch.part.sent_rows), batch.part.places.astype("<u4").tobytes())
    return [_head(_APPLY_PART, batch.space), *parts, *places]


def _head(kind: int, space: str) -> bytes:
    name = space.encode()
    return _HEAD.pack(kind, len(name)) + name


def decoded(data: bytes) -> Entry | Adopt:
    """The entry of some bytes. Raises CorruptDataError."""
    try:
        kind, length = _HEAD.unpack_from(data)
        space = data[_HEAD.size : _HEAD.size + length].decode()
        return _decoded(kind, space, data, _HEAD.size + length)
    except (struct.error, ValueError, OverflowError) as error:
        raise CorruptDataError(f"a log record of {len(data)} bytes cannot be read: {error}") from error


def _decoded(kind: int, space: str, data: bytes, start: int) -> Entry | Adopt:
    if kind in (_APPLY, _APPLY_PART):
        return _batch(space, data, start, is_part=kind == _APPLY_PART)
    if kind == _CREATE:
        return Create(space, _NUMBERS.unpack_from(data, start)[0])
    if kind == _ACTIVATE:
        return Activate(space)
    if kind == _DROP:
        return Drop(space)
    if kind == _ADOPT:
        return Adopt(space)
    raise ValueError(f"no kind {kind}")


def _batch(space: str, data: bytes, start: int, *, is_part: bool) -> Batch:
    first_sequence, rows, columns, log_offset = _NUMBERS.unpack_from(data, start)
    start += _NUMBERS.size
    ordinals = np.frombuffer(data, "<u4", rows, start)
    start += ordinals.nbytes
    vectors_ND = np.frombuffer(data, "<f4", rows * columns, start).reshape(rows, columns)
    start += vectors_ND.nbytes
    tombstones_N = np.frombuffer(data, np.bool_, rows, start)
    part = _part(data, rows, start + tombstones_N.nbytes) if is_part else None
    return Batch(space, first_sequence, ordinals, vectors_ND, tombstones_N, log_offset, part)


def _part(data: bytes, rows: int, start: int) -> Part:
    (sent_rows,) = _SENT_ROWS.unpack_from(data, start)
    places = np.frombuffer(data, "<u4", rows, start + _SENT_ROWS.size)
    return Part(places.astype(np.int64), sent_rows)
