"""The rows of windowed counts: one for each item, category and brand, and one for each person who did something lately.

A person's row is free again once all of its counts are zero, so rows follow who was here within the longest window.
The lowest free row is taken first: which row is whose depends on the log alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.model.growing import grown

_NONE = -1
_USER = -2
# whose row it is when the person was erased: its counts run out there
_NOBODY = ""


class Codes:
    """Small numbers for names, from 1 in the order of first sight; 0 is the empty name."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {"": 0}

    def of(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    def known(self, name: str) -> int | None:
        """The number of a name; None for one never seen."""
        return self._codes.get(name)

    def __len__(self) -> int:
        return len(self._codes)

    def columns(self, prefix: str) -> Columns:
        return packed(prefix, [name.encode() for name in self._codes])

    def restore(self, prefix: str, columns: Columns) -> None:
        self._codes = {name.decode(): code for code, name in enumerate(unpacked(prefix, columns))}


class Entities:
    """Which row counts what."""

    def __init__(self) -> None:
        self.categories = Codes()
        self.brands = Codes()
        # by ordinal: the item's codes, changed by its document
        self.category_of: list[int] = []
        self.brand_of: list[int] = []
        self._rows: dict[str, list[int]] = {"item": [], "category": [], "brand": []}
        self._user_rows: dict[str, int] = {}
        self._users: dict[int, str] = {}
        # an item's ordinal, or _USER, or _NONE
        self._items_R: NDArray[np.int64] = np.empty(0, np.int64)
        self._free: list[int] = []
        self.row_count = 0

    def grow_items(self, count: int) -> None:
        missing = count - len(self.category_of)
        if missing > 0:
            self.category_of += [0] * missing
            self.brand_of += [0] * missing

    def rows_of(self, user_key: str | None, ordinals: list[int]) -> NDArray[np.int64]:
        """Distinct rows that an act counts in: items first, then the user (None: not here), categories and brands."""
        rows = [self._row("item", ordinal) for ordinal in ordinals]
        if user_key is not None:
            rows.append(self._user_row(user_key))
        rows += [
            self._row("category", code) for code in dict.fromkeys(map(self.category_of.__getitem__, ordinals)) if code
        ]
        rows += [self._row("brand", code) for code in dict.fromkeys(map(self.brand_of.__getitem__, ordinals)) if code]
        return np.array(rows, np.int64)

    def _row(self, kind: str, number: int) -> int:
        rows = self._rows[kind]
        if number < len(rows) and rows[number] != _NONE:
            return rows[number]
        rows += [_NONE] * (number + 1 - len(rows))
        row = rows[number] = self._new_row(number if kind == "item" else _NONE)
        return row

    def _user_row(self, user_key: str) -> int:
        row = self._user_rows.get(user_key)
        if row is None:
            row = self._user_rows[user_key] = self._new_row(_USER)
            self._users[row] = user_key
        return row

    def _new_row(self, owner: int) -> int:
        if self._free:
            row = heapq.heappop(self._free)
        else:
            row, self.row_count = self.row_count, self.row_count + 1
            self._items_R = grown(self._items_R, self.row_count, _NONE)
        self._items_R[row] = owner
        return row

    def item_row(self, ordinal: int) -> NDArray[np.int64]:
        """The row of an item, as an array of one."""
        return np.array([self._row("item", ordinal)], np.int64)

    def user_row(self, user_key: str) -> int | None:
        """The row of a person; None when all of their counts are zero."""
        return self._user_rows.get(user_key)

    def free_idle(self, rows: NDArray[np.int64], totals_RW: NDArray[np.int32]) -> None:
        """Frees those of the distinct `rows` that are people's and count nothing any more."""
        of_users = rows[self._items_R[rows] == _USER]
        for row in of_users[~totals_RW[of_users].any(axis=1)].tolist():
            self._user_rows.pop(self._users.pop(row), None)
            self._items_R[row] = _NONE
            heapq.heappush(self._free, row)

    def user_keys(self) -> Iterable[str]:
        return self._user_rows

    def erase_user(self, user_key: str) -> None:
        """Nobody is told apart by the row any more; it is free once its counts have left their windows."""
        row = self._user_rows.pop(user_key, None)
        if row is not None:
            self._users[row] = _NOBODY

    def known_row(self, kind: str, number: int) -> int | None:
        """The row of an entity; None when nothing was counted for it yet."""
        rows = self._rows[kind]
        return rows[number] if number < len(rows) and rows[number] != _NONE else None

    def group_rows(self, kind: str, ordinals: list[int]) -> NDArray[np.int64]:
        """The rows of the items' categories ("category") or brands; −1 where an item has none or it was not counted."""
        codes = self.category_of if kind == "category" else self.brand_of
        rows = self._rows[kind]
        found = [codes[ordinal] if ordinal < len(codes) else 0 for ordinal in ordinals]
        return np.array([rows[code] if code and code < len(rows) else _NONE for code in found], np.int64)

    def items_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Those of the distinct `rows` that are items, and their ordinals."""
        ordinals = self._items_R[rows]
        is_item = ordinals >= 0
        return rows[is_item], ordinals[is_item]

    def columns(self) -> Columns:
        result: dict[str, NDArray[np.generic]] = {
            "entities.category_of": np.array(self.category_of, np.int64),
            "entities.brand_of": np.array(self.brand_of, np.int64),
            **self.categories.columns("entities.categories"),
            **self.brands.columns("entities.brands"),
            **packed("entities.users", [self._users[row].encode() for row in sorted(self._users)]),
            "entities.user": np.array(sorted(self._users), np.int64),
            "entities.row_count": np.array([self.row_count]),
        }
        for kind, rows in self._rows.items():
            result[f"entities.{kind}"] = np.array(rows, np.int64)
        return result

    def restore(self, columns: Columns) -> None:
        self.categories.restore("entities.categories", columns)
        self.brands.restore("entities.brands", columns)
        self.category_of = columns["entities.category_of"].tolist()
        self.brand_of = columns["entities.brand_of"].tolist()
        self._rows = {kind: columns[f"entities.{kind}"].tolist() for kind in self._rows}
        users = [key.decode() for key in unpacked("entities.users", columns)]
        self._users = dict(zip(columns["entities.user"].tolist(), users, strict=True))
        self._user_rows = {user_key: row for row, user_key in self._users.items() if user_key != _NOBODY}
        self.row_count = int(columns["entities.row_count"][0])
        self._restore_owners()

    def _restore_owners(self) -> None:
        self._items_R = np.full(self.row_count, _NONE, np.int64)
        self._items_R[list(self._users)] = _USER
        for ordinal, row in enumerate(self._rows["item"]):
            if row != _NONE:
                self._items_R[row] = ordinal
        used: set[int] = set(self._users).union(*map(_given, self._rows.values()))
        # in ascending order: a heap
        self._free = [row for row in range(self.row_count) if row not in used]


def _given(rows: list[int]) -> Iterable[int]:
    return (row for row in rows if row != _NONE)
