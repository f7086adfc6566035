"""Names as numbers without a table of them."""

from __future__ import annotations

import zlib


def bucket(name: str, buckets: int) -> int:
    """A number from 1 to `buckets` − 1, the same everywhere and always; 0 for no name."""
    return zlib.crc32(name.encode()) % (buckets - 1) + 1 if name else 0
