"""The catalogue and the dead letters in SQL: SQLite by default, PostgreSQL by setting.

All statements run in one thread, so that SQLite's one writer never waits for itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from headrace.ingest.limits import Violation
from headrace.runtime.atomic import make_directory
from headrace.runtime.database import AnyText, hold, migrate, open_engine, scrub, upsert
from headrace.runtime.errors import CorruptDataError, UnavailableError

T = TypeVar("T")

metadata = sa.MetaData()
_items = sa.Table(
    "items",
    metadata,
    sa.Column("ordinal", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("product_id", AnyText, unique=True, nullable=False),
)
_products = sa.Table(
    "products",
    metadata,
    sa.Column("ordinal", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("product", sa.LargeBinary, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("change_time_us", sa.BigInteger, nullable=False),
    sa.Column("log_offset", sa.BigInteger, nullable=False),
    sa.Column("change_id", sa.String, nullable=False),
)
_dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("digest", sa.String, unique=True, nullable=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
    sa.Column("reason", sa.String, nullable=False, index=True),
    sa.Column("violations", sa.Text, nullable=False),
    sa.Column("refused_time_us", sa.BigInteger, nullable=False),
)
_folds = sa.Table(
    "folds",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("log_offset", sa.BigInteger, nullable=False),
)

MIGRATIONS = Path(__file__).parent / "migrations"
_CATALOGUE = "catalogue"
# replicas that give ordinals do so one after another
_ORDINALS = "ordinals"
# SQLite takes 32,766 variables a statement, PostgreSQL 65,535
_IN_LIMIT = 5_000


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """A product as it stands since `log_offset`; `product` is a serialised message."""

    ordinal: int
    product: bytes
    deleted: bool
    change_time_us: int
    log_offset: int
    change_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that was not taken, and why. `digest` is of the event as it was sent."""

    digest: str
    event: bytes
    reason: str
    violations: Sequence[Violation]
    refused_time_us: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refusal in the list."""

    id: int
    refusal: Refusal


class IngestStore:
    """The SQL state of the door; every call is durable when it returns."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ingest-store")

    async def migrate(self) -> None:
        """Brings the schema to this version's."""
        await self._in_transaction(_migrate)

    async def ordinals(self) -> dict[str, int]:
        """All products ever seen."""
        return await self._in_transaction(_all_ordinals)

    async def known_items(self, product_ids: Collection[str]) -> dict[str, int]:
        """The ordinals of those products that have one."""
        return await self._in_transaction(lambda db: _ordinals_of(db, list(product_ids)))

    async def add_items(self, product_ids: Collection[str]) -> dict[str, int]:
        """The ordinals of products, given now to those that have none."""
        return await self._in_transaction(partial(_add_items, product_ids=product_ids))

    async def restore_items(self, ordinals: Mapping[str, int]) -> None:
        """Puts back ordinals that the log knows. CorruptDataError when others are here already."""
        try:
            await self._in_transaction(partial(_restore_items, ordinals=ordinals))
        except sa.exc.IntegrityError as error:
            raise CorruptDataError(f"the log and the catalogue disagree about ordinals: {error.orig}") from error

    async def products(self, ordinals: Collection[int]) -> dict[int, StoredProduct]:
        """Products as they stand, by ordinal; those never written are left out."""
        return await self._in_transaction(partial(_products_of, ordinals=sorted(ordinals)))

    async def apply(self, products: Sequence[StoredProduct]) -> None:
        """Replaces products by what the log says; an older offset never replaces a newer one."""
        await self._in_transaction(partial(_apply, products=products))

    async def folded_offset(self, name: str = _CATALOGUE) -> int:
        """The log up to here was folded into the catalogue (or `name`) by some start."""
        return await self._in_transaction(partial(_folded_offset, name=name))

    async def set_folded_offset(self, offset: int, name: str = _CATALOGUE) -> None:
        await self._in_transaction(partial(_set_folded_offset, offset=offset, name=name))

    async def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Keeps refused events. One that is there word for word is brought up to date, not doubled."""
        if refusals:
            await self._in_transaction(partial(_refuse, refusals=refusals))

    async def dead_letters(
        self,
        *,
        limit: int,
        before_id: int | None = None,
        after_id: int = 0,
        reason: str = "",
        newest_first: bool = True,
    ) -> list[DeadLetter]:
        """Up to `limit` dead letters with `after_id` < id < `before_id`."""
        order = _dead_letters.c.id.desc() if newest_first else _dead_letters.c.id
        query = sa.select(_dead_letters).where(_dead_letters.c.id > after_id).order_by(order).limit(limit)
        if before_id is not None:
            query = query.where(_dead_letters.c.id < before_id)
        if reason:
            query = query.where(_dead_letters.c.reason == reason)
        return await self._in_transaction(lambda db: [_dead_letter(row) for row in db.execute(query)])

    async def dead_letters_of(self, ids: Collection[int]) -> list[DeadLetter]:
        """The dead letters that have one of these ids, oldest first."""
        query = sa.select(_dead_letters).where(_dead_letters.c.id.in_(ids)).order_by(_dead_letters.c.id)
        return await self._in_transaction(lambda db: [_dead_letter(row) for row in db.execute(query)])

    async def forget_dead_letters(self, ids: Collection[int]) -> None:
        query = sa.delete(_dead_letters).where(_dead_letters.c.id.in_(ids))
        await self._in_transaction(lambda db: db.execute(query))

    async def count_dead_letters(self) -> int:
        query = sa.select(sa.func.count()).select_from(_dead_letters)
        return int(await self._in_transaction(lambda db: db.execute(query).scalar_one()))

    async def rewrite_dead_letter(self, letter_id: int, event: bytes) -> None:
        """Gives a dead letter another event."""
        query = sa.update(_dead_letters).where(_dead_letters.c.id == letter_id).values(event=event)
        await self._in_transaction(lambda db: db.execute(query))

    async def forget_dead_letters_before(self, time_us: int) -> int:
        """Forgets what was refused before a time; how many there were."""
        query = sa.delete(_dead_letters).where(_dead_letters.c.refused_time_us < time_us)
        return int(await self._in_transaction(lambda db: db.execute(query).rowcount))

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Does something in a transaction: for what keeps its tables beside these."""
        return await self._in_transaction(work)

    async def scrub(self) -> None:
        """Leaves no copy of deleted rows in the database's files (what a server keeps of them is its own affair)."""
        await asyncio.get_running_loop().run_in_executor(self._pool, lambda: scrub(self._engine, "dead_letters"))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, self._engine.dispose)
        self._pool.shutdown()

    async def _in_transaction(self, work: Callable[[sa.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: self._transaction(work))

    def _transaction(self, work: Callable[[sa.Connection], T]) -> T:
        try:
            with self._engine.begin() as db:
                return work(db)
        except sa.exc.OperationalError as error:
            raise UnavailableError(f"the catalogue's database: {error.orig}", retry_after_s=0.5) from error


def open_store(url: str, data_dir: Path) -> IngestStore:
    """The store at an SQLAlchemy URL; an empty one means a SQLite file in `data_dir`."""
    if not url:
        make_directory(data_dir)
    return IngestStore(open_engine(catalogue_url(url, data_dir), "HEADRACE_INGEST_DATABASE_URL"))


def catalogue_url(url: str, data_dir: Path) -> str:
    """The SQLAlchemy URL that `open_store` uses."""
    return url or f"sqlite:///{data_dir / 'catalogue.db'}"


def _migrate(db: sa.Connection) -> None:
    migrate(db, MIGRATIONS)


def _all_ordinals(db: sa.Connection) -> dict[str, int]:
    return {row.product_id: row.ordinal for row in db.execute(sa.select(_items))}


def _add_items(db: sa.Connection, *, product_ids: Collection[str]) -> dict[str, int]:
    hold(db, _ORDINALS)
    known = _ordinals_of(db, list(product_ids))
    missing = [product_id for product_id in dict.fromkeys(product_ids) if product_id not in known]
    if missing:
        newest = db.execute(sa.select(sa.func.max(_items.c.ordinal))).scalar()
        first = 0 if newest is None else newest + 1
        given = {product_id: first + number for number, product_id in enumerate(missing)}
        _insert_items(db, given)
        known |= given
    return known


def _ordinals_of(db: sa.Connection, product_ids: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(product_ids), _IN_LIMIT):
        query = sa.select(_items).where(_items.c.product_id.in_(product_ids[start : start + _IN_LIMIT]))
        found |= {row.product_id: row.ordinal for row in db.execute(query)}
    return found


def _restore_items(db: sa.Connection, *, ordinals: Mapping[str, int]) -> None:
    hold(db, _ORDINALS)
    known = _ordinals_of(db, list(ordinals)).items()
    # a product that has another ordinal here stays in, and breaks the uniqueness of its id
    _insert_items(db, dict(ordinals.items() - known))


def _insert_items(db: sa.Connection, ordinals: Mapping[str, int]) -> None:
    if ordinals:
        rows = [{"product_id": product_id, "ordinal": ordinal} for product_id, ordinal in ordinals.items()]
        db.execute(sa.insert(_items), rows)


def _products_of(db: sa.Connection, *, ordinals: list[int]) -> dict[int, StoredProduct]:
    found: dict[int, StoredProduct] = {}
    for start in range(0, len(ordinals), _IN_LIMIT):
        query = sa.select(_products).where(_products.c.ordinal.in_(ordinals[start : start + _IN_LIMIT]))
        found |= {row.ordinal: StoredProduct(**row._mapping) for row in db.execute(query)}
    return found


def _apply(db: sa.Connection, *, products: Sequence[StoredProduct]) -> None:
    newest = {product.ordinal: product for product in sorted(products, key=lambda product: product.log_offset)}
    # in one order everywhere, so that two transactions never wait for each other
    rows = [asdict(newest[ordinal]) for ordinal in sorted(newest)]
    upsert(db, _products, "ordinal", rows, newest_by="log_offset")


def _folded_offset(db: sa.Connection, *, name: str) -> int:
    query = sa.select(_folds.c.log_offset).where(_folds.c.name == name)
    return int(db.execute(query).scalar() or 0)


def _set_folded_offset(db: sa.Connection, *, offset: int, name: str) -> None:
    upsert(db, _folds, "name", [{"name": name, "log_offset": offset}])


def _refuse(db: sa.Connection, *, refusals: Sequence[Refusal]) -> None:
    # one after another: their ids are to follow the order in which they came
    hold(db, "dead-letters")
    rows = {refusal.digest: _row(refusal) for refusal in refusals}
    upsert(db, _dead_letters, "digest", list(rows.values()))


def _row(refusal: Refusal) -> dict[str, Any]:
    violations = json.dumps([asdict(violation) for violation in refusal.violations])
    return {
        "digest": refusal.digest,
        "event": refusal.event,
        "reason": refusal.reason,
        "violations": violations,
        "refused_time_us": refusal.refused_time_us,
    }


def _dead_letter(row: sa.Row[Any]) -> DeadLetter:
    violations = [Violation(**violation) for violation in json.loads(row.violations)]
    return DeadLetter(row.id, Refusal(row.digest, row.event, row.reason, violations, row.refused_time_us))
