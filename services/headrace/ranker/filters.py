"""Which products an answer may hold: a filter as a mask over ordinals, and as the index's bitmap."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.ranker.catalogue import Catalogue, category_path

_KEPT = 256


@dataclass(frozen=True, slots=True)
class Filter:
    """All parts must hold. Prices are inclusive; a product without a price is in no price range."""

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    min_price: float | None = None
    max_price: float | None = None
    include_unavailable: bool = False
    allow_ids: tuple[str, ...] = ()
    deny_ids: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it asks for nothing in particular."""
        return self == Filter(include_unavailable=self.include_unavailable)


@dataclass(frozen=True, slots=True)
class Allowed:
    """A filter's answer for one version of the catalogue."""

    mask: NDArray[np.bool_]
    # bit o % 8 of byte o / 8; empty when all are allowed, which is the index's word for that
    bitmap: bytes
    count: int

    def of(self, ordinals: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Whether each of `ordinals` is allowed; ordinals beyond the catalogue are not."""
        known = ordinals < len(self.mask)
        allowed: NDArray[np.bool_] = known & self.mask[np.where(known, ordinals, 0)] if len(self.mask) else known
        return allowed


class Filters:
    """Masks by filter, kept as long as the catalogue stands still."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._kept: OrderedDict[Filter, Allowed] = OrderedDict()
        self._version = -1

    def allowed(self, wanted: Filter) -> Allowed:
        """What `wanted` allows now; shown products only."""
        self._catalogue.tick()
        version = self._catalogue.version
        if version != self._version:
            self._kept.clear()
            self._version = version
        if (known := self._kept.get(wanted)) is not None:
            self._kept.move_to_end(wanted)
            return known
        allowed = _allowed(mask_of(wanted, self._catalogue))
        self._kept[wanted] = allowed
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return allowed


def mask_of(wanted: Filter, catalogue: Catalogue) -> NDArray[np.bool_]:
    """True for each ordinal that may be shown and passes the filter."""
    allowed_N = catalogue.shown().copy()
    if not wanted.include_unavailable:
        allowed_N &= catalogue.available()
    if wanted.categories:
        allowed_N &= catalogue.in_categories([category_path(path) for path in wanted.categories])
    if wanted.brands:
        allowed_N &= catalogue.of_brands(wanted.brands)
    # a missing price is NaN, which is in no range
    if wanted.min_price is not None:
        allowed_N &= catalogue.prices() >= wanted.min_price
    if wanted.max_price is not None:
        allowed_N &= catalogue.prices() <= wanted.max_price
    if wanted.allow_ids:
        allowed_N &= _named(catalogue, wanted.allow_ids)
    if wanted.deny_ids:
        allowed_N &= ~_named(catalogue, wanted.deny_ids)
    return allowed_N


def _named(catalogue: Catalogue, ids: tuple[str, ...]) -> NDArray[np.bool_]:
    named_N = np.zeros(catalogue.count, np.bool_)
    ordinals = [ordinal for each in ids if (ordinal := catalogue.ordinal(each)) is not None]
    named_N[ordinals] = True
    return named_N


def _allowed(mask_N: NDArray[np.bool_]) -> Allowed:
    count = int(mask_N.sum())
    bitmap = b"" if count == len(mask_N) else np.packbits(mask_N, bitorder="little").tobytes()
    return Allowed(mask_N, bitmap, count)
