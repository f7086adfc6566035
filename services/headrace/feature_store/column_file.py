"""Arrays in one file that is there whole or not at all, checked by SHA-256 when it is read."""

from __future__ import annotations

import hashlib
import io
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from headrace.feature_store.columns import Columns
from headrace.runtime.atomic import write_atomically
from headrace.runtime.errors import CorruptDataError

_MAGIC = b"headrace-columns-1\n"
_HASH_BYTES = 32
# what NumPy and zipfile say of bytes that `write_columns` did not write
_NOT_OURS = (
    ValueError,
    KeyError,
    EOFError,
    OSError,
    RuntimeError,
    OverflowError,
    MemoryError,
    TypeError,
    AttributeError,
    zlib.error,
    struct.error,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)


def write_columns(path: Path, columns: Columns) -> int:
    """Writes the arrays; durable when it returns. Answers the file's size in bytes."""
    buffer = io.BytesIO()
    # the stubs of savez take its named arrays for its option `allow_pickle`
    np.savez(buffer, **columns)  # type: ignore[arg-type]
    body = buffer.getvalue()
    data = _MAGIC + hashlib.sha256(body).digest() + body
    write_atomically(path, data)
    return len(data)


def read_columns(path: Path) -> Columns:
    """The arrays of a file. CorruptDataError when it is not what was written."""
    data = path.read_bytes()
    start = len(_MAGIC) + _HASH_BYTES
    body = data[start:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise CorruptDataError(f"{path}: not a file of columns, or its SHA-256 differs")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _NOT_OURS as error:
        raise CorruptDataError(f"{path}: {error}") from error
