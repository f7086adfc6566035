"""What is known of every item before anybody touches it, folded from product changes.

N items, T text width, C category levels, A attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.buckets import bucket
from headrace.model.growing import grown
from headrace.model.text.encoder import TextEncoder
from headrace.model.towers import ATTRIBUTES, CATEGORY_LEVELS, ItemContent, TowerShape
from headrace.trainer.arrays import Arrays, packed_json, unpacked_json
from headrace.trainer.catalogue_text import CatalogueText, FittedText, FrozenText
from headrace.trainer.records import Product

_SEPARATOR = ">"


class Catalogue:
    """Content columns by ordinal; grows as ordinals appear, in products or in events.

    Texts go through `encoder`, or through n-grams fitted to them when there is none.
    """

    def __init__(self, shape: TowerShape, seed: int, encoder: TextEncoder | None = None) -> None:
        self._shape = shape
        self.count = 0
        self._text: CatalogueText = FittedText(shape.text_width, seed) if encoder is None else FrozenText(encoder)
        self._texts: dict[int, str] = {}
        self._text_NT = np.zeros((0, shape.text_width), np.float32)
        self._brand_N = np.zeros(0, np.int32)
        self._category_NC = np.zeros((0, CATEGORY_LEVELS), np.int32)
        self._price_N = np.zeros(0, np.int32)
        self._attributes_NA = np.zeros((0, ATTRIBUTES), np.int32)
        self._described_N = np.zeros(0, np.bool_)
        self._deleted_N = np.zeros(0, np.bool_)

    @property
    def encoder(self) -> TextEncoder:
        """What texts go through; queries are to go through the same."""
        return self._text.encoder

    def grow(self, count: int) -> None:
        """Makes items up to `count` exist; nothing is known of new ones.

        Until it is described, an item has a random text of its own: items without one must not start as one.
        """
        if count <= self.count:
            return
        self._text_NT = grown(self._text_NT, count)
        for ordinal in range(self.count, count):
            self._text_NT[ordinal] = _random_direction(self._shape.text_width, ordinal)
        self._brand_N = grown(self._brand_N, count)
        self._category_NC = grown(self._category_NC, count)
        self._price_N = grown(self._price_N, count)
        self._attributes_NA = grown(self._attributes_NA, count)
        self._described_N = grown(self._described_N, count)
        self._deleted_N = grown(self._deleted_N, count)
        self.count = count

    def fold(self, products: Sequence[Product]) -> NDArray[np.uint32]:
        """Takes in changes; the ordinals whose content may differ now, ascending."""
        newest = {product.ordinal: product for product in products}
        if not newest:
            return np.empty(0, np.uint32)
        self.grow(max(newest) + 1)
        refitted = self._learn_titles(newest.values())
        for product in newest.values():
            self._set(product)
        changed = range(self.count) if refitted else sorted(newest)
        return np.array(changed, np.uint32)

    def _learn_titles(self, products: Iterable[Product]) -> bool:
        described = {product.ordinal: product.text for product in products if not product.deleted}
        self._described_N[list(described)] = True
        changed = {at: text for at, text in described.items() if self._texts.get(at) != text}
        refit = self._text.wants_refit(len(self._texts) + sum(at not in self._texts for at in changed))
        known = list(self._texts.values()) if refit else []
        self._texts |= changed
        if refit:
            self._text.refit(list(self._texts.values()), known)
            changed = self._texts
        if changed:
            self._text_NT[list(changed)] = self.encoder.encode(list(changed.values()))
        return refit

    def _set(self, product: Product) -> None:
        at = product.ordinal
        self._deleted_N[at] = product.deleted
        if product.deleted:
            return
        self._brand_N[at] = bucket(product.brand, self._shape.brand_buckets)
        self._category_NC[at] = category_buckets(product.category, self._shape.category_buckets)
        self._price_N[at] = price_bucket(product.price, self._shape.price_buckets)
        self._attributes_NA[at] = attribute_buckets(product.attributes, self._shape.attribute_buckets)

    def content(self, ordinals: NDArray[np.int64]) -> ItemContent:
        """The content of some items, for the item tower."""
        return ItemContent(
            torch.from_numpy(self._text_NT[ordinals]),
            torch.from_numpy(self._brand_N[ordinals]),
            torch.from_numpy(self._category_NC[ordinals]),
            torch.from_numpy(self._price_N[ordinals]),
            torch.from_numpy(self._attributes_NA[ordinals]),
        )

    def text_vectors(self, ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._text_NT[ordinals]

    def text_directions(self, ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
        """Text vectors brought to length 1."""
        texts_NT = self._text_NT[ordinals]
        return np.asarray(texts_NT / np.maximum(np.linalg.norm(texts_NT, axis=1, keepdims=True), 1e-9), np.float32)

    def marks(self, ordinals: NDArray[np.int64]) -> NDArray[np.int64]:
        """N × C: the buckets of brand, category levels and attributes, numbered apart; 0 where there is none."""
        columns = (
            (self._brand_N[ordinals, None], 0),
            (self._category_NC[ordinals], self._shape.brand_buckets),
            (self._attributes_NA[ordinals], self._shape.brand_buckets + self._shape.category_buckets),
        )
        return np.concatenate([np.where(buckets > 0, buckets + first, 0) for buckets, first in columns], axis=1)

    def text_of(self, ordinal: int) -> str:
        """Title, brand and category; empty for an item that is not described."""
        return self._texts.get(ordinal, "")

    def are_deleted(self, ordinals: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        return np.asarray(self._deleted_N[ordinals])

    def living(self) -> NDArray[np.int64]:
        """Every ordinal that is not deleted, ascending."""
        return np.flatnonzero(~self._deleted_N[: self.count])

    def described(self) -> NDArray[np.int64]:
        """Every ordinal that was described and is not deleted, ascending."""
        return np.flatnonzero(self._described_N[: self.count] & ~self._deleted_N[: self.count])

    def are_described(self, ordinals: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Whether anything is known of them but that they are different ones."""
        return np.asarray(self._described_N[ordinals])

    def arrays(self) -> Arrays:
        return {
            "text_NT": self._text_NT[: self.count],
            "brand_N": self._brand_N[: self.count],
            "category_NC": self._category_NC[: self.count],
            "price_N": self._price_N[: self.count],
            "attributes_NA": self._attributes_NA[: self.count],
            "deleted_N": self._deleted_N[: self.count],
            "texts": packed_json([list(self._texts), list(self._texts.values())]),
        } | self._text.arrays()

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._text_NT = arrays["text_NT"].copy()
        self._brand_N = arrays["brand_N"].copy()
        self._category_NC = arrays["category_NC"].copy()
        self._price_N = arrays["price_N"].copy()
        self._attributes_NA = arrays["attributes_NA"].copy()
        self._deleted_N = arrays["deleted_N"].copy()
        self._texts = dict(zip(*unpacked_json(arrays["texts"]), strict=True))
        self._text.restore(arrays)
        self.count = len(self._brand_N)
        self._described_N = np.zeros(self.count, np.bool_)
        self._described_N[list(self._texts)] = True


def _random_direction(width: int, ordinal: int) -> NDArray[np.float32]:
    numbers = np.random.default_rng(ordinal).standard_normal(width)
    return (numbers / np.linalg.norm(numbers)).astype(np.float32)


def category_buckets(path: str, buckets: int) -> NDArray[np.int32]:
    """A bucket for each level of `Shoes > Boots` from the top down; 0 where there are fewer."""
    levels = [level.strip() for level in path.split(_SEPARATOR)][:CATEGORY_LEVELS] if path else []
    found = np.zeros(CATEGORY_LEVELS, np.int32)
    for depth in range(len(levels)):
        found[depth] = bucket("\x1f".join(levels[: depth + 1]), buckets)
    return found


def attribute_buckets(attributes: Sequence[str], buckets: int) -> NDArray[np.int32]:
    """A bucket for each of the first few attributes (`name=value`); 0 where there are fewer."""
    found = np.zeros(ATTRIBUTES, np.int32)
    for place, attribute in enumerate(attributes[:ATTRIBUTES]):
        found[place] = bucket(attribute, buckets)
    return found


def price_bucket(price: float, buckets: int) -> int:
    """Four buckets to a doubling of the price; 0 when there is none.

    >>> price_bucket(0.0, 64), price_bucket(1.0, 64), price_bucket(2.0, 64)
    (0, 25, 29)
    """
    return int(np.clip(round(4 * np.log2(price)) + 25, 1, buckets - 1)) if price > 0 else 0
