"""What a person did last: one column a fact, oldest first."""

# L events of the history

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VISIT_GAP_US = 30 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class History:
    """A person's last events, oldest first; columns of one length."""

    ordinals: NDArray[np.uint32]  # L
    event_types: NDArray[np.uint8]  # L, EventCode
    times_us: NDArray[np.int64]  # L
    channels: NDArray[np.uint8]  # L
    # known by an account, not by a device alone: guests shop differently
    is_customer: bool = False

    @classmethod
    def empty(cls, is_customer: bool = False) -> History:
        columns = np.empty(0, np.uint32), np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.uint8)
        return cls(*columns, is_customer)

    def __len__(self) -> int:
        return len(self.ordinals)

    def last(self, limit: int) -> History:
        """The newest `limit` events."""
        start = max(0, len(self) - limit)
        columns = self.ordinals[start:], self.event_types[start:], self.times_us[start:], self.channels[start:]
        return History(*columns, self.is_customer)


def is_customer(user_key: str) -> bool:
    """Whether a key names an account ("u:…") or only a device ("v:…")."""
    return user_key.startswith("u:")


def recent_distinct(ordinals: NDArray[np.uint32], limit: int) -> NDArray[np.uint32]:
    """The last distinct items, newest first."""
    newest_first = ordinals[::-1]
    order = np.argsort(newest_first, kind="stable")
    in_order = newest_first[order]
    is_first = np.ones(len(order), np.bool_)
    np.not_equal(in_order[1:], in_order[:-1], out=is_first[1:])
    first = np.sort(order[is_first])
    return newest_first[first[:limit]]


def visit_numbers(times_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 0, 1 …: which visit each event belongs to; a gap of more than 30 minutes begins one."""
    if not len(times_us):
        return np.empty(0, np.int64)
    numbers = np.zeros(len(times_us), np.int64)
    np.cumsum(times_us[1:] - times_us[:-1] > VISIT_GAP_US, out=numbers[1:])
    return numbers
