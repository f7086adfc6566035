"""A data set is a shop's past: its products, and its events in the order in which they happened.

The files are not part of Headrace: `find` says where they are looked for. `simulated-shop` needs none.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, cast

from headrace.runtime.errors import InvalidRequestError, NotFoundError
from headrace.runtime.settings import CommonSettings, SettingsError, load
from headrace.v1.common_pb2 import Product, UserEvent

BATCH = 500

SIMULATED_SHOP = "simulated-shop"

# name -> module, class, folder, arguments
_KINDS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "online_retail": ("online_retail", "OnlineRetail", "online_retail", ()),
    "diginetica": ("sessions", "Sessions", "ader", ("diginetica",)),
    "yoochoose": ("sessions", "Sessions", "ader", ("yoochoose",)),
    "diginetica_srgnn": ("sessions", "StaticSessions", "diginetica_srgnn", ()),
    "amazon_beauty": ("amazon", "Amazon", "amazon14", ("beauty",)),
    "amazon_sports": ("amazon", "Amazon", "amazon14", ("sports",)),
    "chorus": ("chorus", "Chorus", "chorus_search", ()),
    "dunnhumby": ("dunnhumby", "Dunnhumby", "dunnhumby_sample", ()),
}

NAMES = (*_KINDS, SIMULATED_SHOP)


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` up to, not including, `end`; both in UTC."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class ProductUpdate:
    """A product as it stands from a moment on: a promotion begins or ends."""

    time: datetime
    product: Product


class Dataset(Protocol):
    """Products and events of one shop. Every method can be called again and gives the same."""

    @property
    def name(self) -> str: ...

    @property
    def is_simulated(self) -> bool:
        """True: nobody ever bought any of this."""
        ...

    @property
    def licence(self) -> str:
        """What the source states about use, in a sentence."""
        ...

    @property
    def span(self) -> Span:
        """The time of the events; empty (start = end) when there are none."""
        ...

    def products(self) -> Iterator[list[Product]]:
        """Every product as it is first sold, in the order of publish_time, in batches."""
        ...

    def product_updates(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[ProductUpdate]:
        """Later versions of products, in time order."""
        ...

    def events(self, start: datetime | None = None, end: datetime | None = None) -> Iterator[list[UserEvent]]:
        """Events with start <= time < end in the order in which they arrived, in batches."""
        ...


def find(name: str, data: Path | None = None) -> Dataset:
    """The data set `name` (one of NAMES).

    `data` is the folder that holds the data sets' folders; without it HEADRACE_DATA, else
    `../shared/data` beside the working directory. NotFoundError says what is there.
    """
    if name == SIMULATED_SHOP:
        return _made("simulated_shop", "SimulatedShop")
    if name not in _KINDS:
        raise NotFoundError(f"no data set {name!r}; known: {', '.join(NAMES)}")
    module, kind, folder, arguments = _KINDS[name]
    return _made(module, kind, _folder(name, folder, data), *arguments)


def data_folder(data: Path | None = None) -> Path | None:
    """Where data sets are looked for; None when no place is named and none is at hand."""
    given = data or _named_folder()
    if given is not None:
        return given
    beside = Path("../shared/data")
    return beside if beside.is_dir() else None


def _named_folder() -> Path | None:
    try:
        return load(CommonSettings).data
    except SettingsError as error:
        raise InvalidRequestError.of("environment", str(error)) from error


def _folder(name: str, folder: str, data: Path | None) -> Path:
    root = data_folder(data)
    if root is None:
        raise NotFoundError(
            f"data set {name!r} needs its files: name their folder with --data or HEADRACE_DATA; "
            f"{SIMULATED_SHOP!r} needs none"
        )
    if (root / folder).is_dir():
        return root / folder
    there = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    raise NotFoundError(f"no folder {folder!r} in {root}; there: {', '.join(there) or 'nothing'}")


def _made(module: str, kind: str, *arguments: object) -> Dataset:
    # imported late: polars and numpy are slow to load, and one data set is used at a time
    make = getattr(importlib.import_module(f"headrace.datasets.{module}"), kind)
    return cast("Callable[..., Dataset]", make)(*arguments)
