"""What the write-ahead log holds: every accepted change of the index, as bytes."""

# N rows, D dimension

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from headrace.index.batch import Batch
from headrace.runtime.errors import CorruptDataError

_APPLY, _CREATE, _ACTIVATE, _DROP = 1, 2, 3, 4
# kind, length of the space's name; then first_sequence or dimension, rows, columns, log offset
_HEAD = struct.Struct("<BB")
_NUMBERS = struct.Struct("<qIIq")


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


Entry = Batch | Create | Activate | Drop


def encoded(entry: Entry) -> bytes:
    """The bytes of an entry."""
    if isinstance(entry, Batch):
        rows, columns = entry.vectors_ND.shape
        numbers = _NUMBERS.pack(entry.first_sequence, rows, columns, entry.log_offset)
        parts = (entry.ordinals.tobytes(), entry.vectors_ND.tobytes(), entry.tombstones_N.tobytes())
        return b"".join((_head(_APPLY, entry.space), numbers, *parts))
    if isinstance(entry, Create):
        return _head(_CREATE, entry.space) + _NUMBERS.pack(entry.dimension, 0, 0, 0)
    return _head(_ACTIVATE if isinstance(entry, Activate) else _DROP, entry.space)


def _head(kind: int, space: str) -> bytes:
    name = space.encode()
    return _HEAD.pack(kind, len(name)) + name


def decoded(data: bytes) -> Entry:
    """The entry of some bytes. Raises CorruptDataError."""
    try:
        kind, length = _HEAD.unpack_from(data)
        space = data[_HEAD.size : _HEAD.size + length].decode()
        return _decoded(kind, space, data, _HEAD.size + length)
    except (struct.error, ValueError) as error:
        raise CorruptDataError(f"a log record of {len(data)} bytes cannot be read: {error}") from error


def _decoded(kind: int, space: str, data: bytes, start: int) -> Entry:
    if kind == _APPLY:
        return _batch(space, data, start)
    if kind == _CREATE:
        return Create(space, _NUMBERS.unpack_from(data, start)[0])
    if kind == _ACTIVATE:
        return Activate(space)
    if kind == _DROP:
        return Drop(space)
    raise ValueError(f"no kind {kind}")


def _batch(space: str, data: bytes, start: int) -> Batch:
    first_sequence, rows, columns, log_offset = _NUMBERS.unpack_from(data, start)
    start += _NUMBERS.size
    ordinals = np.frombuffer(data, "<u4", rows, start)
    start += ordinals.nbytes
    vectors_ND = np.frombuffer(data, "<f4", rows * columns, start).reshape(rows, columns)
    start += vectors_ND.nbytes
    tombstones_N = np.frombuffer(data, np.bool_, rows, start)
    return Batch(space, first_sequence, ordinals, vectors_ND, tombstones_N, log_offset)
