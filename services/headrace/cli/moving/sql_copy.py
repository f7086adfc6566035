"""The rows of one SQL database copied into another, SQLite or PostgreSQL on either side."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from headrace.runtime.database import migrate, open_engine, revisions
from headrace.runtime.errors import FailedPreconditionError

_BATCH = 2_000


def copy_tables(source_url: str, target_url: str, metadata: sa.MetaData, migrations: Path) -> dict[str, int]:
    """Copies all rows as of one moment, all or none; how many of each table, none when there are no tables yet.

    FailedPreconditionError: the source's tables are of another version, or the target has other rows.
    """
    source, target = open_engine(source_url), open_engine(target_url)
    try:
        with _as_of_one_moment(source) as given, target.begin() as taken:
            if not _is_begun(given, migrations):
                return {}
            migrate(taken, migrations)
            return {table.name: _copy(given, taken, table) for table in metadata.sorted_tables}
    finally:
        source.dispose()
        target.dispose()


def _as_of_one_moment(source: sa.Engine) -> sa.Connection:
    # SQLite's transactions are alone anyway
    options = {"isolation_level": "REPEATABLE READ"} if source.dialect.name == "postgresql" else {}
    return source.execution_options(**options).connect()


def _is_begun(given: sa.Connection, migrations: Path) -> bool:
    now, newest = revisions(given, migrations)
    if now and now != newest:
        raise FailedPreconditionError(
            f"the tables of {given.engine.url.render_as_string()} are at {now}, not {newest}: "
            "let the service start once, it brings them up to date"
        )
    return bool(now)


def _copy(given: sa.Connection, taken: sa.Connection, table: sa.Table) -> int:
    if taken.execute(sa.select(sa.func.count()).select_from(table)).scalar():
        return _same(given, taken, table)
    count = 0
    for part in given.execute(sa.select(table)).mappings().partitions(_BATCH):
        taken.execute(sa.insert(table), [dict(row) for row in part])
        count += len(part)
    _go_on_counting(taken, table)
    return count


def _same(given: sa.Connection, taken: sa.Connection, table: sa.Table) -> int:
    """How many rows both have, where they are the same: a copy that was broken off may be made again."""
    rows = sa.select(table).order_by(*table.primary_key)
    there, here = taken.execute(rows).fetchall(), given.execute(rows).fetchall()
    if there != here:
        raise FailedPreconditionError(f"{table.name} in {taken.engine.url.render_as_string()} has other rows already")
    return len(there)


def _go_on_counting(taken: sa.Connection, table: sa.Table) -> None:
    """PostgreSQL gives numbers from a sequence that rows with numbers of their own do not move."""
    counted = table.autoincrement_column
    if taken.dialect.name != "postgresql" or counted is None:
        return
    sequence = sa.func.pg_get_serial_sequence(table.name, counted.name)
    newest = sa.select(sa.func.max(counted)).scalar_subquery()
    if taken.execute(sa.select(sequence)).scalar() and taken.execute(sa.select(newest)).scalar():
        taken.execute(sa.select(sa.func.setval(sequence, newest)))
