"""What the shop sells, in memory: item features and product facts as columns by ordinal.

Fed by the feature store's stream of items. "Now" for publish and expire times is the log's time, like
everywhere in Headrace, so that a replayed shop shows what it showed; the wall clock stands in until the
log has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.items import Items
from headrace.runtime.clock import now_us as wall_clock_us

FOREVER_US = np.iinfo(np.int64).max
_FIRST_CAPACITY = 1024
_SEPARATOR = " > "


@dataclass(frozen=True, slots=True)
class Listing:
    """A product as the shop lists it. `price` is NaN when there is none; `document` is what callers get back."""

    ordinal: int
    id: str
    title: str
    description: str = ""
    brands: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    price: float = float("nan")
    is_available: bool = True
    publish_us: int = 0
    expire_us: int = FOREVER_US
    document: bytes = b""


@dataclass(frozen=True, slots=True)
class ItemRows:
    """Feature rows and neighbours of some items, as the feature store computed them."""

    ordinals: NDArray[np.uint32]
    features: NDArray[np.float32]
    neighbour_ordinals: NDArray[np.uint32]
    neighbour_weights: NDArray[np.float32]


@dataclass
class _Columns:
    """Facts that filters and sorting need, one row an ordinal."""

    described: NDArray[np.bool_]
    available: NDArray[np.bool_]
    price: NDArray[np.float64]
    publish_us: NDArray[np.int64]
    expire_us: NDArray[np.int64]

    @classmethod
    def empty(cls, capacity: int) -> _Columns:
        return cls(
            np.zeros(capacity, np.bool_),
            np.zeros(capacity, np.bool_),
            np.full(capacity, np.nan),
            np.zeros(capacity, np.int64),
            np.full(capacity, FOREVER_US, np.int64),
        )

    def grown(self, capacity: int) -> _Columns:
        larger, held = _Columns.empty(capacity), len(self.described)
        for name in vars(self):
            getattr(larger, name)[:held] = getattr(self, name)
        return larger


class Catalogue:
    """All products by ordinal and by id. One writer, the event loop; readers in other threads.

    `version` grows whenever another set of products may be shown.
    """

    def __init__(self, items: Items) -> None:
        self.items = items
        self.version = 0
        self.offset = 0
        self.is_loaded = False
        self.now_us = 0
        self._listings: list[Listing | None] = []
        self._ordinals: dict[str, int] = {}
        self._brands: dict[str, set[int]] = {}
        self._categories: dict[str, set[int]] = {}
        self._columns = _Columns.empty(_FIRST_CAPACITY)
        self._next_boundary_us = FOREVER_US

    @property
    def count(self) -> int:
        """Ordinals 0..count-1 have a place here; not each of them a listing."""
        return len(self._listings)

    @property
    def described(self) -> int:
        """Products that have a listing."""
        return len(self._ordinals)

    def ordinal(self, product_id: str) -> int | None:
        return self._ordinals.get(product_id)

    def listing(self, ordinal: int) -> Listing | None:
        return self._listings[ordinal] if ordinal < len(self._listings) else None

    def ids(self, ordinals: Iterable[int]) -> list[str]:
        """Product ids of listed ordinals; the others are left out."""
        return [listing.id for ordinal in ordinals if (listing := self.listing(ordinal)) is not None]

    def shown(self) -> NDArray[np.bool_]:
        """Listed, published and not expired."""
        columns, count, now_us = self._columns, self.count, self.shop_time_us()
        return columns.described[:count] & (columns.publish_us[:count] <= now_us) & (now_us < columns.expire_us[:count])

    def available(self) -> NDArray[np.bool_]:
        return self._columns.available[: self.count]

    def prices(self) -> NDArray[np.float64]:
        """NaN where there is none."""
        return self._columns.price[: self.count]

    def publish_times_us(self) -> NDArray[np.int64]:
        return self._columns.publish_us[: self.count]

    def in_categories(self, paths: Sequence[str]) -> NDArray[np.bool_]:
        """In any of these categories, or below them; `paths` as `category_path` gives them."""
        return self._any_of(self._categories, paths)

    def of_brands(self, brands: Sequence[str]) -> NDArray[np.bool_]:
        return self._any_of(self._brands, brands)

    def _any_of(self, sets: dict[str, set[int]], names: Sequence[str]) -> NDArray[np.bool_]:
        found = np.zeros(self.count, np.bool_)
        for name in names:
            members = sets.get(name, ())
            found[np.fromiter(members, np.int64, len(members))] = True
        return found

    def shop_time_us(self) -> int:
        """The log's time; the wall clock's before there is any."""
        return self.now_us or wall_clock_us()

    def advance(self, now_us: int, offset: int) -> None:
        """Notes the log's time and how far the item features are."""
        is_first = self.now_us == 0
        self.now_us = max(self.now_us, now_us)
        self.offset = max(self.offset, offset)
        if is_first:
            # the wall clock's time may have been later
            self._note_change()
        self.tick()

    def tick(self) -> None:
        """Notes that time went past a moment at which a product appears or goes."""
        if self.shop_time_us() >= self._next_boundary_us:
            self._note_change()

    def update(self, rows: ItemRows) -> None:
        """Takes feature rows in."""
        if len(rows.ordinals):
            self.items.grow(int(rows.ordinals.max()) + 1)
            self.items.update(rows.ordinals, rows.features, rows.neighbour_ordinals, rows.neighbour_weights)

    def put(self, listings: Sequence[Listing]) -> None:
        """Lists products, or lists them anew."""
        if not listings:
            return
        self._reserve(max(listing.ordinal for listing in listings) + 1)
        for listing in listings:
            self._unlink(listing.ordinal)
            self._link(listing)
        self._note_change()

    def remove(self, ordinals: Iterable[int]) -> None:
        """Takes products out of every answer; their features stay."""
        for ordinal in ordinals:
            self._unlink(ordinal)
        self._note_change()

    def listed_ordinals(self) -> set[int]:
        return set(self._ordinals.values())

    def _reserve(self, count: int) -> None:
        if count > len(self._columns.described):
            self._columns = self._columns.grown(max(count, 2 * len(self._columns.described)))
        self._listings.extend([None] * (count - len(self._listings)))
        self.items.grow(count)

    def _link(self, listing: Listing) -> None:
        ordinal, columns = listing.ordinal, self._columns
        self._listings[ordinal] = listing
        self._ordinals[listing.id] = ordinal
        columns.described[ordinal] = True
        columns.available[ordinal] = listing.is_available
        columns.price[ordinal] = listing.price
        columns.publish_us[ordinal] = listing.publish_us
        columns.expire_us[ordinal] = listing.expire_us
        for sets, name in _memberships(listing, self._brands, self._categories):
            sets.setdefault(name, set()).add(ordinal)

    def _unlink(self, ordinal: int) -> None:
        listing = self.listing(ordinal)
        if listing is None:
            return
        self._listings[ordinal] = None
        self._columns.described[ordinal] = False
        if self._ordinals.get(listing.id) == ordinal:
            del self._ordinals[listing.id]
        for sets, name in _memberships(listing, self._brands, self._categories):
            sets[name].discard(ordinal)
            if not sets[name]:
                del sets[name]

    def _note_change(self) -> None:
        self.version += 1
        columns, count, now_us = self._columns, self.count, self.shop_time_us()
        times = np.concatenate([columns.publish_us[:count], columns.expire_us[:count]])
        ahead = times[times > now_us]
        self._next_boundary_us = int(ahead.min()) if len(ahead) else int(FOREVER_US)


def category_path(category: str) -> str:
    """A category path with its separators made even: "Shoes>Boots " → "Shoes > Boots"."""
    return _SEPARATOR.join(part for each in category.split(">") if (part := each.strip()))


def _memberships(
    listing: Listing, brands: dict[str, set[int]], categories: dict[str, set[int]]
) -> list[tuple[dict[str, set[int]], str]]:
    paths = {path for category in listing.categories for path in _with_parents(category)}
    return [(brands, brand) for brand in dict.fromkeys(listing.brands)] + [(categories, path) for path in paths]


def _with_parents(category: str) -> list[str]:
    parts = category_path(category).split(_SEPARATOR)
    return [_SEPARATOR.join(parts[: depth + 1]) for depth in range(len(parts))]
