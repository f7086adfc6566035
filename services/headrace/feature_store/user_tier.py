"""Where people's histories rest between snapshots: in the process, or in a Redis when they outgrow its memory.

The state holds the people it changed since the last snapshot, and those it met lately; a tier holds everybody as of
the last snapshot. So a tier changes at snapshots alone, and the snapshot's file is what commits: the rows are stored
first, and whoever restores an older file gets the rows as they were then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from headrace.feature_store.columns import Columns


class UserTier(Protocol):
    """Rows by user key, as of the offset that was stored last. A row is a history's bytes and never empty.

    `fetch` may be called from any thread, the rest from one at a time. UnavailableError: it can't be reached now.
    CorruptDataError: it no longer holds what was stored.
    """

    # whether a call may wait for another machine
    is_remote: bool

    def fetch(self, user_keys: Sequence[str]) -> dict[str, bytes]:
        """The rows of those who have one."""
        ...

    def store(self, offset: int, rows: Mapping[str, bytes], cutoff_us: int) -> None:
        """Moves on to `offset`: these rows are replaced (removed where empty), and so are people with no event
        newer than `cutoff_us` removed. Durable when it returns, and no part of the state until a snapshot is."""
        ...

    def columns(self) -> Columns:
        """What a snapshot must hold to find the rows again as they are now."""
        ...

    def restore(self, offset: int, columns: Columns) -> None:
        """Goes back to the snapshot at `offset`; to nobody at all at 0. CorruptDataError: that is not possible."""
        ...

    def keep_from(self, offset: int) -> None:
        """Nothing older than the snapshot at `offset` will be restored any more."""
        ...

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """Everybody, in no particular order."""
        ...

    def names(self, partitions: Collection[int]) -> Iterator[str]:
        """Everybody whose key is in one of these partitions of the log, in no particular order."""
        ...

    def traces_of(self, user_key: str) -> int:
        """At how many places a server knows the person, at whatever offset; what is in files is not counted."""
        ...

    def __len__(self) -> int: ...

    def close(self) -> None: ...


def digest_of(rows: Iterable[tuple[str, bytes]]) -> str:
    """A digest of rows in any order: the sum of their SHA-256 (AdHash, Bellare and Micciancio 1997)."""
    total = 0
    for user_key, row in rows:
        key = user_key.encode()
        total += int.from_bytes(hashlib.sha256(b"%d %b%b" % (len(key), key, row)).digest(), "big")
    return f"{total % (1 << 256):064x}"
