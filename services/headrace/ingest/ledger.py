"""Erasures in SQL: who was forgotten (by keyed hash) and how far each erasure is. Never an id in clear."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import sqlalchemy as sa

from headrace.ingest.storage import IngestStore, metadata
from headrace.runtime.database import hold, upsert
from headrace.runtime.erasures import TOMBSTONE, erasure_of, read_left
from headrace.runtime.eventlog import EventLog

# whoever copies the door's tables copies these too
__all__ = ["Ledger", "Standing", "metadata"]

_FOLD = "forgotten"
_forgotten = sa.Table(
    "forgotten",
    metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("until_us", sa.BigInteger, nullable=False),
)
_erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("request", sa.String, nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("log_offset", sa.BigInteger, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("receipt", sa.LargeBinary, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Standing:
    """One erasure as far as it is."""

    id: str
    # which question it answers, as a keyed hash, and the how manieth time that it was asked anew
    request: str
    number: int
    time_us: int
    # digests as hex, by what they are of
    own: tuple[str, ...]
    shared: tuple[str, ...]
    # of the tombstone; 0 before there is one
    log_offset: int = 0
    # what was erased, by store
    erased: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    receipt: bytes = b""
    complete: bool = False


class Ledger:
    """The tables of erasures beside the door's others."""

    def __init__(self, store: IngestStore) -> None:
        self._store = store

    async def forgotten(self) -> dict[bytes, int]:
        """Everybody who was forgotten, with the moment."""
        query = sa.select(_forgotten)
        return await self._store.run(lambda db: {bytes.fromhex(row.digest): row.until_us for row in db.execute(query)})

    async def catch_up(self, event_log: EventLog) -> None:
        """Takes in the tombstones of the log: a database that was lost has forgotten who was forgotten."""
        after, end = await self._store.folded_offset(_FOLD), (await event_log.end())[0]
        while records := await read_left(event_log, after, TOMBSTONE):
            erasures = [erasure_of(record) for record in records]
            rows = [_forgotten_row(digest.hex(), one.time_us) for one in erasures for digest in one.digests]
            await self._store.run(lambda db: _forget(db, rows))  # noqa: B023  # awaited at once
            after = records[-1].offset
        await self._store.set_folded_offset(max(after, end), _FOLD)

    async def newest(self, request: str) -> Standing | None:
        """The newest erasure that a request began."""
        query = sa.select(_erasures).where(_erasures.c.request == request).order_by(_erasures.c.number.desc()).limit(1)
        row = await self._store.run(lambda db: db.execute(query).first())
        return None if row is None else _standing(row)

    async def begin(self, standing: Standing) -> None:
        """Makes an erasure known, and refuses what the people did before; one that is known stays as it is."""
        await self._store.run(partial(_begin, standing=standing))

    async def put(self, standing: Standing) -> None:
        """Notes how far an erasure is."""
        await self._store.run(lambda db: upsert(db, _erasures, "id", [_row(standing)]))


def _begin(db: sa.Connection, *, standing: Standing) -> None:
    hold(db, "erasures")
    if db.execute(sa.select(_erasures.c.id).where(_erasures.c.id == standing.id)).first() is not None:
        return
    db.execute(sa.insert(_erasures), [_row(standing)])
    _forget(db, [_forgotten_row(digest, standing.time_us) for digest in standing.own])


def _forgotten_row(digest: str, until_us: int) -> dict[str, Any]:
    return {"digest": digest, "until_us": until_us}


def _forget(db: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    # in one order everywhere, so that two transactions never wait for each other
    ordered = sorted(rows, key=lambda row: (row["digest"], row["until_us"]))
    upsert(db, _forgotten, "digest", ordered, newest_by="until_us")


def _row(standing: Standing) -> dict[str, Any]:
    facts = {"own": standing.own, "shared": standing.shared, "erased": standing.erased}
    return {
        "id": standing.id,
        "request": standing.request,
        "number": standing.number,
        "time_us": standing.time_us,
        "log_offset": standing.log_offset,
        "facts": json.dumps(facts, sort_keys=True),
        "receipt": standing.receipt,
        "complete": standing.complete,
    }


def _standing(row: sa.Row[Any]) -> Standing:
    facts = json.loads(row.facts)
    return Standing(
        row.id,
        row.request,
        row.number,
        row.time_us,
        tuple(facts["own"]),
        tuple(facts["shared"]),
        row.log_offset,
        facts["erased"],
        bytes(row.receipt),
        row.complete,
    )
