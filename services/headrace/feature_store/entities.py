"""The rows of windowed counts: one for each item, user, category and brand, given at first sight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.model.growing import grown

_NONE = -1


class Codes:
    """Small numbers for names, from 1 in the order of first sight; 0 is the empty name."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {"": 0}

    def of(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))

    def __len__(self) -> int:
        return len(self._codes)

    def columns(self, prefix: str) -> Columns:
        return packed(prefix, [name.encode() for name in self._codes])

    def restore(self, prefix: str, columns: Columns) -> None:
        self._codes = {name.decode(): code for code, name in enumerate(unpacked(prefix, columns))}


class Entities:
    """Which row counts what. Rows grow in the order of first sight, so they are the same in every fold."""

    def __init__(self) -> None:
        self.categories = Codes()
        self.brands = Codes()
        # by ordinal: the item's codes, changed by its document
        self.category_of: list[int] = []
        self.brand_of: list[int] = []
        self._rows: dict[str, list[int]] = {"item": [], "user": [], "category": [], "brand": []}
        self._items_R: NDArray[np.int64] = np.empty(0, np.int64)
        self.row_count = 0

    def grow_items(self, count: int) -> None:
        missing = count - len(self.category_of)
        if missing > 0:
            self.category_of += [0] * missing
            self.brand_of += [0] * missing

    def rows_of(self, user: int, ordinals: list[int]) -> NDArray[np.int64]:
        """Distinct rows that an act counts in: items first, then the user, categories and brands."""
        rows = [self._row("item", ordinal) for ordinal in ordinals]
        rows.append(self._row("user", user))
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
        row = rows[number] = self.row_count
        self.row_count += 1
        self._items_R = grown(self._items_R, self.row_count, _NONE)
        self._items_R[row] = number if kind == "item" else _NONE
        return row

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
        """The distinct rows among `rows` that are items, and their ordinals."""
        rows = np.unique(rows)
        ordinals = self._items_R[rows]
        is_item = ordinals != _NONE
        return rows[is_item], ordinals[is_item]

    def columns(self) -> Columns:
        result: dict[str, NDArray[np.generic]] = {
            "entities.category_of": np.array(self.category_of, np.int64),
            "entities.brand_of": np.array(self.brand_of, np.int64),
            **self.categories.columns("entities.categories"),
            **self.brands.columns("entities.brands"),
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
        self.row_count = sum(row != _NONE for rows in self._rows.values() for row in rows)
        self._items_R = np.full(max(self.row_count, 1024), _NONE, np.int64)
        for ordinal, row in enumerate(self._rows["item"]):
            if row != _NONE:
                self._items_R[row] = ordinal
