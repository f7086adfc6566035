"""Everybody's rows in the process; the snapshot's file holds them all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.feature_store.histories import newest_us
from headrace.runtime.errors import CorruptDataError
from headrace.runtime.eventlog import partition_of


class InProcessTier:
    """A `UserTier` that needs no server."""

    is_remote = False

    def __init__(self) -> None:
        self._rows: dict[str, bytes] = {}
        # when each did something last; only filled where people are removed for having been away
        self._newest_us: dict[str, int] = {}

    def fetch(self, user_keys: Sequence[str]) -> dict[str, bytes]:
        return {key: row for key in user_keys if (row := self._rows.get(key))}

    def store(self, offset: int, rows: Mapping[str, bytes], cutoff_us: int) -> None:
        for user_key, row in rows.items():
            if row:
                self._rows[user_key] = row
            else:
                self._rows.pop(user_key, None)
        if cutoff_us > 0:
            self._remove_away(rows, cutoff_us)

    def _remove_away(self, changed: Mapping[str, bytes], cutoff_us: int) -> None:
        for user_key in changed if self._newest_us else self._rows:
            self._newest_us[user_key] = newest_us(self._rows.get(user_key, b""))
        away = [user_key for user_key, last_us in self._newest_us.items() if last_us <= cutoff_us]
        for user_key in away:
            del self._newest_us[user_key]
            self._rows.pop(user_key, None)

    def columns(self) -> Columns:
        keys = [key.encode() for key in self._rows]
        return {**packed("users.keys", keys), **packed("users.events", list(self._rows.values()))}

    def restore(self, offset: int, columns: Columns) -> None:
        self._rows, self._newest_us = {}, {}
        if not offset:
            return
        if "users.keys.bytes" not in columns:
            raise CorruptDataError(f"the snapshot at {offset} left its users in a Redis, and none is named now")
        keys = [key.decode() for key in unpacked("users.keys", columns)]
        self._rows = dict(zip(keys, unpacked("users.events", columns), strict=True))

    def keep_from(self, offset: int) -> None:
        """A snapshot's file is all that its rows need."""

    def rows(self) -> Iterator[tuple[str, bytes]]:
        return iter(list(self._rows.items()))

    def names(self, partitions: Collection[int]) -> Iterator[str]:
        return (user_key for user_key in list(self._rows) if partition_of(user_key) in partitions)

    def traces_of(self, user_key: str) -> int:
        return 0

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None: ...
