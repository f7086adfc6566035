"""Log records as columns: the only place of the trainer that knows how the log is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.model.events import EVENT_CODES
from headrace.runtime.erasures import TOMBSTONE, Erasure, erasure_of
from headrace.runtime.errors import CorruptDataError
from headrace.runtime.eventlog import LoggedRecord
from headrace.runtime.eventlog.payloads import corrupt, pass_over, payload_of
from headrace.v1 import common_pb2, log_pb2

# E events of a slice, R shown items


# spans that one slice links to; the rest of a burst is not worth its bytes
_MOST_LINKED = 32


@dataclass(frozen=True, slots=True)
class Events:
    """What people did to items, in the order of the log: one row an item of an event."""

    users: NDArray[np.int64]  # E, into `user_keys`
    ordinals: NDArray[np.uint32]  # E
    event_types: NDArray[np.uint8]  # E, EventCode
    times_us: NDArray[np.int64]  # E
    channels: NDArray[np.uint8]  # E
    user_keys: tuple[str, ...]
    # attribution tokens, "" for none
    tokens: tuple[str, ...]  # E
    # of the device that each was done on, "" for none; empty where nobody asks
    device_keys: tuple[str, ...] = ()  # E or none

    def __len__(self) -> int:
        return len(self.ordinals)

    def actors(self, row: int) -> set[str]:
        """Who may have been shown what an event answers: the person, or their device before it logged in."""
        device = self.device_keys[row] if self.device_keys else ""
        return {self.user_keys[self.users[row]], device} - {""}

    def at(self, rows: NDArray[np.int64]) -> Events:
        """Some of the events, in the order named; of nobody else is a key kept."""
        people, users = np.unique(self.users[rows], return_inverse=True)
        return Events(
            users.astype(np.int64),
            self.ordinals[rows],
            self.event_types[rows],
            self.times_us[rows],
            self.channels[rows],
            tuple(self.user_keys[person] for person in people),
            tuple(self.tokens[row] for row in rows),
            tuple(self.device_keys[row] for row in rows) if self.device_keys else (),
        )


@dataclass(frozen=True, slots=True)
class Product:
    """What the towers read of a product."""

    offset: int
    ordinal: int
    text: str
    brand: str
    category: str
    price: float
    deleted: bool
    # "name=value", by name
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Searched:
    """Words that a person asked for."""

    user_key: str
    query: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """How far chance had a part in a list's order, as log.proto tells it; a share of 0: none."""

    share: float = 0.0
    temperature: float = 0.0
    slate: int = 0


CERTAIN = Drawing()


@dataclass(frozen=True, slots=True)
class Shown:
    """A list that a person saw, with the features that it was ranked by."""

    token: str
    user_key: str
    ordinals: NDArray[np.uint32]  # R
    features: NDArray[np.float32]  # R × F
    feature_schema: str
    time_us: int
    # what made the list
    release: str = ""
    # what it was ordered by; of another length where it was not logged
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))  # R
    drawing: Drawing = CERTAIN


@dataclass(frozen=True, slots=True)
class Slice:
    """The records with `after` < offset <= `until`, as columns."""

    after: int
    until: int
    events: Events
    products: tuple[Product, ...] = ()
    searches: tuple[Searched, ...] = ()
    impressions: tuple[Shown, ...] = ()
    # who is to be forgotten from here on
    erasures: tuple[Erasure, ...] = ()
    traceparent: str = ""
    append_times_us: tuple[int, ...] = ()
    # of the other traced records, newest first
    linked: tuple[str, ...] = ()

    @classmethod
    def empty(cls, after: int, until: int) -> Slice:
        return slice_of((), after, until)


@dataclass
class _EventRows:
    users: list[int] = field(default_factory=list)
    ordinals: list[int] = field(default_factory=list)
    event_types: list[int] = field(default_factory=list)
    times_us: list[int] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    device_keys: list[str] = field(default_factory=list)
    user_numbers: dict[str, int] = field(default_factory=dict)

    def add(self, logged: log_pb2.LoggedUserEvent, code: int) -> None:
        count = len(logged.item_ordinals)
        user = self.user_numbers.setdefault(logged.user_key, len(self.user_numbers))
        self.users.extend([user] * count)
        self.ordinals.extend(logged.item_ordinals)
        self.event_types.extend([code] * count)
        self.times_us.extend([logged.event_time_us] * count)
        self.channels.extend([logged.event.channel] * count)
        self.tokens.extend([logged.event.attribution_token] * count)
        self.device_keys.extend([_device_key(logged.event.visitor_id)] * count)

    def columns(self) -> Events:
        return Events(
            np.array(self.users, np.int64),
            np.array(self.ordinals, np.uint32),
            np.array(self.event_types, np.uint8),
            np.array(self.times_us, np.int64),
            np.array(self.channels, np.int64).clip(0, 15).astype(np.uint8),
            tuple(self.user_numbers),
            tuple(self.tokens),
            tuple(self.device_keys),
        )


def _device_key(visitor_id: str) -> str:
    return f"v:{visitor_id}" if visitor_id else ""


def slice_of(records: Sequence[LoggedRecord], after: int, until: int) -> Slice:
    """The records as one slice; kinds and event types that teach nothing are passed over, and unreadable records."""
    rows = _EventRows()
    products: list[Product] = []
    searches: list[Searched] = []
    impressions: list[Shown] = []
    erasures: list[Erasure] = []
    for record in records:
        if record.kind == TOMBSTONE:
            erasures.append(erasure_of(record))
            continue
        try:
            if record.kind == "user-event":
                _add_event(payload_of(log_pb2.LoggedUserEvent, record), rows, searches)
            elif record.kind == "product-change":
                products.append(_product(record.offset, payload_of(log_pb2.ProductChange, record)))
            elif record.kind == "impression":
                impressions.append(_shown(record))
        except CorruptDataError as error:
            pass_over(record, error)
    traces = [record.traceparent for record in reversed(records) if record.traceparent]
    return Slice(
        after,
        until,
        rows.columns(),
        tuple(products),
        tuple(searches),
        tuple(impressions),
        tuple(erasures),
        traces[0] if traces else "",
        tuple(record.append_time_us for record in records),
        tuple(traces[1 : 1 + _MOST_LINKED]),
    )


def _add_event(logged: log_pb2.LoggedUserEvent, rows: _EventRows, searches: list[Searched]) -> None:
    code = EVENT_CODES.get(logged.event.event_type)
    if code is not None:
        rows.add(logged, int(code))
    elif logged.event.search_query:
        searches.append(Searched(logged.user_key, logged.event.search_query, logged.event_time_us))


def _product(offset: int, change: log_pb2.ProductChange) -> Product:
    product = change.product
    return Product(
        offset,
        change.ordinal,
        _text(product),
        _first(product.brands),
        _first(product.categories),
        product.price_info.price,
        change.deleted,
        tuple(f"{name}={value}" for name, value in sorted(product.attributes.items())),
    )


def _text(product: common_pb2.Product) -> str:
    return " ".join([product.title, *product.brands[:2], *product.categories[:2]])


def _first(values: Iterable[str]) -> str:
    return next(iter(values), "")


def _shown(record: LoggedRecord) -> Shown:
    impression = payload_of(log_pb2.Impression, record)
    matrix = impression.features
    try:
        ordinals = np.frombuffer(impression.item_ordinals, "<u4")
        features = np.frombuffer(matrix.values, "<f4").reshape(matrix.rows, matrix.columns)
        scores = np.frombuffer(impression.scores, "<f4")
    except ValueError as error:
        raise corrupt(record, str(error)) from error
    return Shown(
        impression.attribution_token,
        impression.user_key,
        ordinals,
        features,
        impression.feature_schema,
        impression.time_us,
        impression.release,
        scores,
        Drawing(impression.explore_share, impression.temperature, impression.slate_size),
    )
