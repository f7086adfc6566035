"""Product documents as they stand, and the columns that follow from them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.feature_store.facts import ProductFact
from headrace.model.items import COLUMN, hours


class Catalogue:
    """Documents by ordinal; empty for items that are known from events alone."""

    def __init__(self) -> None:
        self._documents: list[bytes] = []
        self._ordinals: dict[str, int] = {}

    def ordinal(self, product_id: str) -> int | None:
        """Whose document named this id; None when none has."""
        return self._ordinals.get(product_id)

    def document(self, ordinal: int) -> bytes:
        return self._documents[ordinal] if ordinal < len(self._documents) else b""

    def described(self) -> list[int]:
        """Ordinals that have a document, deleted or not."""
        return [ordinal for ordinal, document in enumerate(self._documents) if document]

    def put(self, fact: ProductFact) -> None:
        self._documents += [b""] * (fact.ordinal + 1 - len(self._documents))
        self._documents[fact.ordinal] = fact.document
        if fact.product_id:
            self._ordinals[fact.product_id] = fact.ordinal

    def columns(self) -> Columns:
        return {
            **packed("catalogue.documents", self._documents),
            **packed("catalogue.ids", [product_id.encode() for product_id in self._ordinals]),
            "catalogue.ordinals": np.fromiter(self._ordinals.values(), np.int64, len(self._ordinals)),
        }

    def restore(self, columns: Columns) -> None:
        self._documents = unpacked("catalogue.documents", columns)
        ids = [product_id.decode() for product_id in unpacked("catalogue.ids", columns)]
        self._ordinals = dict(zip(ids, columns["catalogue.ordinals"].tolist(), strict=True))


def describe(row: NDArray[np.float32], fact: ProductFact, category: int, brand: int) -> None:
    """Writes what a document says into an item's columns. A deletion leaves all but the mark as it was."""
    row[COLUMN["deleted"]] = fact.deleted
    if fact.deleted:
        return
    before = float(row[COLUMN["price"]])
    if before > 0 and fact.price > 0 and np.float32(fact.price) != np.float32(before):
        row[COLUMN["price_change"]] = np.clip(math.log(fact.price / before), -3.0, 3.0)
    row[COLUMN["described"]] = 1
    row[COLUMN["available"]] = fact.available
    row[COLUMN["price"]] = fact.price
    row[COLUMN["discount"]] = 1 - fact.price / fact.original_price if fact.original_price > 0 else 0
    row[COLUMN["publish_h"]] = -1e9 if fact.publish_us is None else hours(fact.publish_us)
    row[COLUMN["expire_h"]] = 1e9 if fact.expire_us is None else hours(fact.expire_us)
    row[COLUMN["category"]] = category
    row[COLUMN["brand"]] = brand
