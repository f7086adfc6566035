"""Rows of one key as one event: the lines of a basket become its products.

A group is complete when no row of it came for `within_rows` rows, or at the end of the file. Rows of a group that
come later than that are rejected, not sent as a second event that the door would take for a repeat. To know them, a
number of 8 bytes is kept for every group of the file.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace.datasets.importing.mapping import Group
from headrace.datasets.importing.values import Cells, UnmappedError, cell, text_of
from headrace.v1.common_pb2 import UserEvent

# what all rows of an event must say alike
_ALIKE = ("event_type", "visitor_id", "user_id", "event_id", "transaction_id", "session_id")


@dataclass
class Grouped:
    """An event and the numbers of the rows that it is made of."""

    event: UserEvent
    rows: list[int] = field(default_factory=list)


class Groups:
    """Gathers rows. `UnmappedError` tells why a row cannot join its group."""

    def __init__(self, group: Group) -> None:
        self._by = group.by
        self._within = group.within_rows
        # by the row that came last, oldest first
        self._open: OrderedDict[str, Grouped] = OrderedDict()
        self._closed: set[int] = set()

    def add(self, number: int, cells: Cells, event: UserEvent) -> None:
        """Takes a row's event into its group: its products join those of the first row, the rest stays the first's."""
        key = self._key(cells)
        if _short(key) in self._closed:
            raise UnmappedError(f"comes over {self._within} rows (group.within_rows) after its event")
        if key not in self._open:
            self._open[key] = Grouped(event, [number])
            return
        grouped = self._open[key]
        for name in _ALIKE:
            first, given = getattr(grouped.event, name), getattr(event, name)
            if first != given:
                raise UnmappedError(f"{name} {given!r} is not that of its event's first row, {first!r}")
        grouped.event.product_details.extend(event.product_details)
        grouped.rows.append(number)
        self._open.move_to_end(key)

    def complete(self, number: int) -> Iterator[Grouped]:
        """The events that no row after `number` can belong to."""
        while self._open:
            key, grouped = next(iter(self._open.items()))
            if grouped.rows[-1] + self._within > number:
                return
            self._closed.add(_short(key))
            yield self._open.pop(key)

    def rest(self) -> Iterator[Grouped]:
        """All that are left, at the end of a file."""
        while self._open:
            key, grouped = self._open.popitem(last=False)
            self._closed.add(_short(key))
            yield grouped

    def first_open_row(self) -> int | None:
        """The lowest row of the events that are not complete."""
        return min((grouped.rows[0] for grouped in self._open.values()), default=None)

    def _key(self, cells: Cells) -> str:
        values = [cell(cells, column) for column in self._by]
        return "\0".join("" if value is None else text_of(value) for value in values)


def _short(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
