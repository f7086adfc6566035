"""Growing arrays, and byte strings laid end to end: how the state is held and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.runtime.errors import CorruptDataError

# any array of the state: the element types differ by name
Columns = Mapping[str, NDArray[np.generic]]


def packed(prefix: str, strings: Sequence[bytes]) -> dict[str, NDArray[np.generic]]:
    """Two columns, lengths and bytes, under `prefix`."""
    lengths = np.fromiter((len(string) for string in strings), np.int64, len(strings))
    return {f"{prefix}.lengths": lengths, f"{prefix}.bytes": np.frombuffer(b"".join(strings), np.uint8)}


def unpacked(prefix: str, columns: Columns) -> list[bytes]:
    """The strings that `packed` laid down. CorruptDataError: their lengths are others."""
    lengths = columns[f"{prefix}.lengths"].astype(np.int64)
    data = columns[f"{prefix}.bytes"].tobytes()
    if lengths.min(initial=0) < 0 or lengths.sum() != len(data):
        raise CorruptDataError(f"{prefix}: strings of {lengths.sum()} bytes in all, {len(data)} are there")
    ends = np.cumsum(lengths).tolist()
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
