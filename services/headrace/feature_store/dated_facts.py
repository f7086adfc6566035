"""What was true of whom from when to when, and since which offset that is known: promotions, coupons, campaigns.

The facts of one entity are one immutable string of rows beside the documents that they were said in, replaced as a
whole, so a reader on another thread sees both before or after a record, never in between. A row keeps the offset at
which a later record replaced it: whether it held at a moment, as known at an offset, can be told from the row alone.

A row goes when it can matter no more to a question within the horizon: it ended, or was replaced or taken back,
longer ago. Its revision is forgotten with it: what is said of the fact afterwards counts whatever its revision is.
`complete_from_us` and `complete_from_offset` say which questions can still be answered.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace.feature_store.columns import Columns, packed, unpacked
from headrace.feature_store.entities import Codes
from headrace.feature_store.facts import USER, VISITOR, DatedFact, Entity

NEVER = np.iinfo(np.int64).max
ALWAYS = np.iinfo(np.int64).min
NO_ORDINAL = 0xFFFFFFFF

OTHER, PROMOTION, DISCOUNT, COUPON, CAMPAIGN = range(5)
_FAMILIES = {"promotion": PROMOTION, "discount": DISCOUNT, "coupon": COUPON, "campaign": CAMPAIGN}

ROW = np.dtype(
    [
        # 128 bits of SHA-256 of the fact's id
        ("fact", "<u8", (2,)),
        ("offset", "<i8"),
        ("known_us", "<i8"),
        ("replaced_offset", "<i8"),
        ("replaced_us", "<i8"),
        ("from_us", "<i8"),
        ("until_us", "<i8"),
        ("revision", "<i8"),
        ("number", "<f8"),
        ("store", "<u4"),
        ("campaign", "<u4"),
        ("ordinal", "<u4"),
        ("family", "u1"),
        ("deleted", "?"),
    ]
)

Rows = NDArray[np.void]
# the keys of people and devices among the entities
_PEOPLE = {USER: "u:", VISITOR: "v:"}


class DatedFacts:
    """Facts by entity. `horizon_us` of the log's time can be looked back over."""

    def __init__(self, horizon_us: int) -> None:
        self._horizon_us = horizon_us
        self._held: dict[Entity, tuple[bytes, tuple[bytes, ...]]] = {}
        self._products: dict[int, Entity] = {}
        self._of_kind: dict[int, set[str]] = {}
        self.stores = Codes()
        self._campaigns = Codes()
        # when something of an entity may be over; what is due is looked at, so that it may be there twice
        self._due: list[tuple[int, Entity]] = []
        self.complete_from_us: int = ALWAYS
        self.complete_from_offset = 0
        # a copy of the state is taken often, facts change seldom
        self._columns: Columns | None = None

    def put(self, fact: DatedFact, now_us: int) -> None:
        """Takes a record in: a new fact, or what is now said of a known one. A lower revision changes nothing."""
        data, documents = self._held.get(fact.entity, (b"", ()))
        rows, key = np.frombuffer(data, ROW).copy(), key_of(fact.fact_id)
        standing = np.flatnonzero((rows["fact"] == key).all(axis=1) & (rows["replaced_offset"] == NEVER))
        if len(standing):
            if rows["revision"][standing[0]] > fact.revision:
                return
            rows["replaced_offset"][standing] = fact.offset
            rows["replaced_us"][standing] = now_us
        self._hold(fact.entity, rows.tobytes() + self._row(fact, key, now_us).tobytes(), (*documents, fact.document))
        ends_us = [now_us] if fact.deleted or len(standing) else []
        for due_us in (*ends_us, fact.until_us):
            if due_us != NEVER:
                heapq.heappush(self._due, (due_us, fact.entity))
        self.advance(now_us)

    def _row(self, fact: DatedFact, key: tuple[int, int], now_us: int) -> Rows:
        row = np.zeros(1, ROW)
        row["fact"] = key
        row["offset"], row["known_us"] = fact.offset, now_us
        row["replaced_offset"] = row["replaced_us"] = NEVER
        row["from_us"], row["until_us"], row["revision"] = fact.from_us, fact.until_us, fact.revision
        row["number"] = fact.number
        row["store"], row["campaign"] = self.stores.of(fact.store_id), self._campaigns.of(fact.campaign_id)
        row["ordinal"] = NO_ORDINAL if fact.ordinal is None else fact.ordinal
        row["family"], row["deleted"] = _FAMILIES.get(fact.name.partition(".")[0], OTHER), fact.deleted
        return row

    def _hold(self, entity: Entity, rows: bytes, documents: tuple[bytes, ...]) -> None:
        self._columns = None
        self._held[entity] = (rows, documents)
        self._of_kind.setdefault(entity[0], set()).add(entity[1])
        ordinal = int(np.frombuffer(rows, ROW, count=1)["ordinal"][0])
        if ordinal != NO_ORDINAL:
            self._products[ordinal] = entity

    def advance(self, now_us: int) -> None:
        """Lets go of what no question within the horizon can need."""
        oldest_us = now_us - self._horizon_us
        while self._due and self._due[0][0] <= oldest_us:
            self._trim(heapq.heappop(self._due)[1], oldest_us)

    def _trim(self, entity: Entity, oldest_us: int) -> None:
        if entity not in self._held:
            return
        data, documents = self._held[entity]
        rows = np.frombuffer(data, ROW)
        is_replaced, is_over = rows["replaced_us"] <= oldest_us, rows["until_us"] <= oldest_us
        goes = is_replaced | is_over | (rows["deleted"] & (rows["known_us"] <= oldest_us))
        if not goes.any():
            return
        self.complete_from_us = max(self.complete_from_us, *rows["until_us"][is_over].tolist(), ALWAYS)
        self.complete_from_offset = max(self.complete_from_offset, *rows["replaced_offset"][is_replaced].tolist(), 0)
        if goes.all():
            self._forget(entity, int(rows["ordinal"][0]))
            return
        kept = tuple(document for document, gone in zip(documents, goes.tolist(), strict=True) if not gone)
        self._hold(entity, rows[~goes].tobytes(), kept)

    def _forget(self, entity: Entity, ordinal: int) -> None:
        self._columns = None
        del self._held[entity]
        self._of_kind[entity[0]].discard(entity[1])
        self._products.pop(ordinal, None)

    def user_keys(self) -> Iterable[str]:
        """People and devices that there are facts about."""
        for kind, prefix in _PEOPLE.items():
            yield from (prefix + name for name in self._of_kind.get(kind, ()))

    def erase(self, user_keys: Iterable[str]) -> None:
        """There never were facts about these people."""
        gone = set(user_keys)
        for kind, prefix in _PEOPLE.items():
            for name in [name for name in self._of_kind.get(kind, ()) if prefix + name in gone]:
                self._forget((kind, name), NO_ORDINAL)
        self._due = [due for due in self._due if due[1] in self._held]
        heapq.heapify(self._due)

    def documents(self, entity: Entity, time_us: int, offset: int, store_id: str = "") -> list[bytes]:
        """What held at a moment, as known at an offset; of all stores unless one is named."""
        data, documents = self._held.get(entity, (b"", ()))
        rows = np.frombuffer(data, ROW)
        holds = holding(rows, time_us, offset) & self.in_store(rows, store_id)
        return [documents[place] for place in np.flatnonzero(holds).tolist()]

    def in_store(self, rows: Rows, store_id: str) -> NDArray[np.bool_]:
        """Which rows are of a store or of everywhere; all of them when none is named."""
        if not store_id:
            return np.ones(len(rows), np.bool_)
        is_there: NDArray[np.bool_] = np.isin(rows["store"], [0, self.stores.known(store_id) or 0])
        return is_there

    def rows(self, entity: Entity) -> bytes:
        """All rows of an entity, end to end; see ROW."""
        return self._held.get(entity, (b"", ()))[0]

    def product_rows(self, ordinal: int) -> bytes:
        """The same of a product by its ordinal."""
        entity = self._products.get(ordinal)
        return b"" if entity is None else self.rows(entity)

    def entities(self, kind: int) -> Sequence[str]:
        """Ids of the entities of a kind that there are facts about."""
        return tuple(self._of_kind.get(kind, ()))

    def __len__(self) -> int:
        """Rows held."""
        return sum(len(documents) for _, documents in self._held.values())

    def columns(self) -> Columns:
        if self._columns is None:
            bounds = np.array([self.complete_from_us, self.complete_from_offset], np.int64)
            self._columns = {
                **packed("dated.entities", [json.dumps(entity).encode() for entity in self._held]),
                **packed("dated.rows", [rows for rows, _ in self._held.values()]),
                **packed("dated.documents", [one for _, documents in self._held.values() for one in documents]),
                **self.stores.columns("dated.stores"),
                **self._campaigns.columns("dated.campaigns"),
                "dated.bounds": bounds,
            }
        return self._columns

    def restore(self, columns: Columns) -> None:
        self.stores.restore("dated.stores", columns)
        self._campaigns.restore("dated.campaigns", columns)
        documents = iter(unpacked("dated.documents", columns))
        entities = [tuple(json.loads(entity)) for entity in unpacked("dated.entities", columns)]
        for entity, data in zip(entities, unpacked("dated.rows", columns), strict=True):
            rows = np.frombuffer(data, ROW)
            self._hold(entity, data, tuple(next(documents) for _ in rows))
            self._due += _ends(entity, rows)
        heapq.heapify(self._due)
        self.complete_from_us, self.complete_from_offset = columns["dated.bounds"].astype(np.int64).tolist()


def holding(rows: Rows, time_us: int, offset: int) -> NDArray[np.bool_]:
    """Which rows held at a moment, as known when the log ended at `offset`."""
    is_known = (rows["offset"] <= offset) & (offset < rows["replaced_offset"]) & ~rows["deleted"]
    holds: NDArray[np.bool_] = is_known & (rows["from_us"] <= time_us) & (time_us < rows["until_us"])
    return holds


def _ends(entity: Entity, rows: Rows) -> list[tuple[int, Entity]]:
    ends_us = np.minimum(rows["until_us"], rows["replaced_us"])
    ends_us = np.where(rows["deleted"], np.minimum(ends_us, rows["known_us"]), ends_us)
    return [(end_us, entity) for end_us in ends_us.tolist() if end_us != NEVER]


def key_of(fact_id: str) -> tuple[int, int]:
    """What stands for a fact's id in its rows."""
    digest = hashlib.sha256(fact_id.encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
