"""Columns of bytes from a request as arrays; every fault is noted, none is raised."""

# N rows, D dimension

from __future__ import annotations

import numpy as np

from headrace.index.rows import F32, NO_ORDINALS, U8, U32
from headrace.runtime.errors import Faults

NORM_LIMIT = 1e4


def ordinals_column(data: bytes, field: str, faults: Faults, max_ordinal: int) -> U32:
    """Little-endian uint32 ordinals, none above `max_ordinal`."""
    whole = len(data) % 4 == 0
    if not faults.check(whole, field, f"must be whole little-endian uint32 numbers, got {len(data)} bytes"):
        return NO_ORDINALS
    ordinals = np.frombuffer(data, "<u4")
    highest = int(ordinals.max(initial=0))
    faults.check(highest <= max_ordinal, field, f"ordinals must be at most {max_ordinal}, got {highest}")
    return ordinals


def matrix(rows: int, columns: int, values: bytes, field: str, faults: Faults) -> F32 | None:
    """A float32 matrix by rows: its bytes must fit its shape. None when it has a fault."""
    if not faults.check(
        len(values) == rows * columns * 4,
        field,
        f"{rows} × {columns} float32 values must be {rows * columns * 4} bytes, got {len(values)}",
    ):
        return None
    matrix_ND = np.frombuffer(values, "<f4").reshape(rows, columns)
    fine = np.isfinite(matrix_ND).all(axis=1)
    if not fine.all():
        faults.add(field, f"must be finite, got NaN or infinity in row {int(np.argmin(fine))}")
        return None
    return matrix_ND


def norms(matrix_ND: F32) -> F32:
    """The Euclidean norm of each row."""
    # in float64, for squares of large float32 values overflow
    squares: F32 = np.einsum("nd,nd->n", matrix_ND, matrix_ND, dtype=np.float64)
    return np.sqrt(squares)


def bitmap(data: bytes, field: str, faults: Faults, max_ordinal: int) -> U8 | None:
    """A bitmap over ordinals; None when it is empty, which allows all."""
    limit = max_ordinal // 8 + 1
    faults.check(len(data) <= limit, field, f"must be at most {limit} bytes, got {len(data)}")
    return np.frombuffer(data, np.uint8) if data else None
