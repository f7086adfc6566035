"""Products and their ordinals: a fold of the log, kept in SQL so that it is not folded anew.

The order of writing makes a crash harmless at any point: ordinals first, then the log, then the
product's row with its offset. What was logged but has no row yet is caught up at the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.ingest.identity import digest
from headrace.ingest.outcomes import Outcome, Result
from headrace.ingest.product_validation import product_violations
from headrace.ingest.storage import IngestStore, StoredProduct
from headrace.runtime.clock import now_us
from headrace.runtime.errors import NotFoundError, TrimmedError
from headrace.runtime.eventlog import EventLog, LoggedRecord, Record
from headrace.runtime.eventlog.payloads import payload_of
from headrace.runtime.telemetry import traceparent
from headrace.v1.common_pb2 import Product
from headrace.v1.log_pb2 import LoggedDatedFact, LoggedUserEvent, ProductChange

_READ_LIMIT = 2_000


@dataclass
class _Change:
    """A change that is to be logged, and which products of the batch it stands for."""

    product_id: str
    stored: StoredProduct
    positions: list[int] = field(default_factory=list)


class Catalogue:
    """All products ever seen. `open` must come first."""

    def __init__(
        self, store: IngestStore, log: EventLog, *, listed: Callable[[Product], None] = lambda product: None
    ) -> None:
        """`listed` is told of every product as it stands at the start, and of each that is written here."""
        self._store = store
        self._listed = listed
        self._log = log
        self._ordinals: dict[str, int] = {}
        self._writing = asyncio.Lock()

    def __len__(self) -> int:
        """Products known, deleted ones too."""
        return len(self._ordinals)

    async def open(self) -> None:
        """Reads the ordinals and catches up with the log.

        TrimmedError: the log has forgotten what is needed for that, so the database must be restored from a copy.
        """
        self._ordinals = await self._store.ordinals()
        if not self._ordinals:
            await self._require_whole_log()
        await self.catch_up()
        ordinals = sorted(self._ordinals.values())
        for start in range(0, len(ordinals), _READ_LIMIT):
            for stored in (await self._store.products(ordinals[start : start + _READ_LIMIT])).values():
                self._listed(Product.FromString(stored.product))

    async def _require_whole_log(self) -> None:
        # an ordinal that only forgotten records know would be given again, to another product
        for first in await self._log.read(0, limit=1):
            if first.offset > 1:
                raise TrimmedError(0, first.offset)

    async def ordinals(self, product_ids: Collection[str]) -> Mapping[str, int]:
        """A mapping that holds the ordinals of these products (and others).

        New ones get theirs now, in the order given, so that a replay gives the same.
        """
        known = self._ordinals
        new = [product_id for product_id in product_ids if product_id not in known]
        if new:
            known |= await self._store.add_items(new)
        return known

    async def write(self, products: Sequence[Product]) -> list[Result]:
        """Creates or replaces products; durable, and in the catalogue, when it returns."""
        results: dict[int, Result] = {}
        valid: list[tuple[int, Product]] = []
        for position, product in enumerate(products):
            violations = product_violations(product)
            if violations:
                results[position] = Result(product.id, Outcome.REJECTED, violations=violations)
            else:
                valid.append((position, product))
                self._listed(product)
        async with self._writing:
            results |= await self._write_valid(valid)
        return [results[position] for position in range(len(products))]

    async def delete(self, product_id: str) -> int:
        """Takes a product out of the catalogue; the offset of the record that says so.

        NotFoundError when it was never seen. Deleting it again changes nothing.
        """
        async with self._writing:
            ordinal = await self._ordinal_of(product_id)
            if ordinal is None:
                raise NotFoundError(f"no product {product_id!r} was ever seen")
            standing = (await self._store.products([ordinal])).get(ordinal)
            if standing is not None and standing.deleted:
                return standing.log_offset
            changed = _changed(ordinal, Product(id=product_id), standing, deleted=True)
            return (await self._log_changes([_Change(product_id, changed)]))[0].offset

    async def _ordinal_of(self, product_id: str) -> int | None:
        if product_id not in self._ordinals:
            # another replica may have seen it
            self._ordinals |= await self._store.known_items([product_id])
        return self._ordinals.get(product_id)

    async def _write_valid(self, valid: Sequence[tuple[int, Product]]) -> dict[int, Result]:
        ordinals = await self.ordinals([product.id for _, product in valid])
        standing = await self._store.products({ordinals[product.id] for _, product in valid})
        results: dict[int, Result] = {}
        newest: dict[int, _Change] = {}
        changes: list[_Change] = []
        for position, product in valid:
            ordinal = ordinals[product.id]
            before = newest[ordinal].stored if ordinal in newest else standing.get(ordinal)
            stored = _changed(ordinal, product, before)
            if before is None or before.deleted or before.product != stored.product:
                newest[ordinal] = _Change(product.id, stored, [position])
                changes.append(newest[ordinal])
            elif ordinal in newest:
                newest[ordinal].positions.append(position)
            else:
                results[position] = Result(product.id, Outcome.DUPLICATE, before.log_offset)
        for change, logged in zip(changes, await self._log_changes(changes), strict=True):
            first, *repeats = change.positions
            results[first] = logged
            results |= {position: Result(logged.id, Outcome.DUPLICATE, logged.offset) for position in repeats}
        return results

    async def _log_changes(self, changes: Sequence[_Change]) -> list[Result]:
        trace = traceparent()
        appended = await self._log.append([_record(change, trace) for change in changes])
        pairs = list(zip(changes, appended, strict=True))
        await self._store.apply([replace(change.stored, log_offset=place.offset) for change, place in pairs])
        return [
            Result(change.product_id, Outcome.DUPLICATE if place.duplicate else Outcome.ACCEPTED, place.offset)
            for change, place in pairs
        ]

    async def catch_up(self) -> None:
        """Folds what was logged since the last time and may have no row yet."""
        end = (await self._log.end())[0]
        # a lost database gets its ordinals back from the events and the dated facts too
        kinds = ("product-change",) if self._ordinals else ("product-change", "user-event", "dated-fact")
        offset = await self._store.folded_offset()
        while offset < end:
            records = await self._log.read(offset, limit=_READ_LIMIT, kinds=kinds)
            await self._fold(records)
            offset = records[-1].offset if len(records) == _READ_LIMIT else end
        await self._store.set_folded_offset(offset)
        self._ordinals = await self._store.ordinals()

    async def _fold(self, records: Sequence[LoggedRecord]) -> None:
        ordinals: dict[str, int] = {}
        products: list[StoredProduct] = []
        for record in records:
            if record.kind == "product-change":
                change = payload_of(ProductChange, record)
                ordinals[change.product.id] = change.ordinal
                products.append(_stored(change, record))
            elif record.kind == "dated-fact":
                dated = payload_of(LoggedDatedFact, record)
                if dated.HasField("item_ordinal"):
                    ordinals[dated.fact.entity_id] = dated.item_ordinal
            else:
                logged = payload_of(LoggedUserEvent, record)
                named = [detail.product_id for detail in logged.event.product_details]
                ordinals |= dict(zip(named, logged.item_ordinals, strict=True))
        await self._store.restore_items(ordinals)
        await self._store.apply(products)


def _changed(ordinal: int, product: Product, before: StoredProduct | None, *, deleted: bool = False) -> StoredProduct:
    content = product.SerializeToString(deterministic=True)
    # named by content and by what it replaces: a repeat is the same change, A after B is a new one
    seed = (before.change_id if before else "").encode() + bytes([deleted]) + content
    return StoredProduct(ordinal, content, deleted, now_us(), 0, f"product-change:{digest(seed)}")


def _record(change: _Change, trace: str) -> Record:
    stored = change.stored
    message = ProductChange(
        ordinal=stored.ordinal,
        product=Product.FromString(stored.product),
        deleted=stored.deleted,
        change_time_us=stored.change_time_us,
    )
    return Record(
        "product-change",
        change.product_id,
        stored.change_id,
        stored.change_time_us,
        message.SerializeToString(deterministic=True),
        trace,
    )


def _stored(change: ProductChange, record: LoggedRecord) -> StoredProduct:
    return StoredProduct(
        change.ordinal,
        change.product.SerializeToString(deterministic=True),
        change.deleted,
        change.change_time_us,
        record.offset,
        record.event_id,
    )
