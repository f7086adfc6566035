"""SQL state through SQLAlchemy, in SQLite or PostgreSQL: durable, and its tables up to date.

Transactions are at READ COMMITTED in PostgreSQL and one at a time in SQLite: what must not happen
twice at once takes a lock by name (`hold`), and rows that may be there already are upserted.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite

from headrace.runtime.errors import UnavailableError
from headrace.runtime.settings import SettingsError
from headrace.runtime.sqlite import make_durable, truncate_wal

_DIALECTS = ("sqlite", "postgresql")


class AnyText(sa.types.TypeDecorator[str]):
    """Text of any characters: PostgreSQL's own refuses NUL, so there it is kept as its bytes."""

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.LargeBinary() if dialect.name == "postgresql" else sa.String())

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> Any:
        return value.encode() if value is not None and dialect.name == "postgresql" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        return value.decode() if isinstance(value, bytes) else value


class AnyNumbers(sa.types.TypeDecorator[Any]):
    """JSON in which numbers may be NaN or infinite: PostgreSQL's own refuses them, so there it is kept as text."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(sa.Text() if dialect.name == "postgresql" else sa.JSON())

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        return json.dumps(value) if dialect.name == "postgresql" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        return json.loads(value) if isinstance(value, str) and dialect.name == "postgresql" else value


def open_engine(url: str, variable: str = "the database's URL") -> sa.Engine:
    """An engine at an SQLAlchemy URL, which `variable` gave: errors name that.

    SettingsError: it is neither SQLite's nor PostgreSQL's, or the extra for that is not installed.
    """
    try:
        given = sa.make_url(url)
        if given.get_backend_name() not in _DIALECTS:
            raise SettingsError(f"{variable}: {given.drivername}://… is not supported, only {' and '.join(_DIALECTS)}")
        if given.get_backend_name() == "sqlite":
            engine = sa.create_engine(given)
            _serialise(engine)
            return engine
        # a server that was started again has forgotten its connections
        return sa.create_engine(given, pool_pre_ping=True)
    except ImportError as error:
        raise SettingsError(
            f"{variable} needs the extra postgres: pip install 'headrace[postgres]' ({error})"
        ) from error
    except sa.exc.ArgumentError as error:
        raise SettingsError(f"{variable}: {url!r} is no SQLAlchemy URL") from error


@contextlib.contextmanager
def answering(what: str) -> Iterator[None]:
    """UnavailableError, which names `what`, where the database does not answer: it may later."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        raise UnavailableError(f"{what}: {error.orig}") from error


def _serialise(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _: object) -> None:
        # the driver's own transactions begin late, which makes two writers fail instead of wait
        connection.isolation_level = None
        make_durable(connection)

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def migrate(db: sa.Connection, folder: Path, version: str = "head") -> None:
    """Brings the tables to a version of the migrations in `folder`: forwards, or backwards to an older one."""
    hold(db, str(folder.parent.name))
    config = _configuration(folder, db)
    if version == "head":
        command.upgrade(config, version)
    else:
        command.downgrade(config, version)


def revisions(db: sa.Connection, folder: Path) -> tuple[str, str]:
    """The version that the tables are at (empty: there are none) and the newest one in `folder`.

    Nothing is changed once the caller rolls back.
    """
    config = _configuration(folder, db)
    versions = ScriptDirectory.from_config(config)
    found: list[str] = []

    def note(heads: Sequence[str], _: object) -> list[Any]:
        found.extend(heads)
        return []

    # only the folder's own env.py knows in which table its version is kept
    with EnvironmentContext(config, versions, fn=note):
        versions.run_env()
    return "".join(found), versions.get_current_head() or ""


def _configuration(folder: Path, db: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = db
    return config


def scrub(engine: sa.Engine, table: str) -> None:
    """Leaves no copy of deleted rows in the files: SQLite writes over them, but its log still holds the pages."""
    with contextlib.closing(engine.raw_connection()) as connection:
        # of either driver
        driver: Any = connection.driver_connection
        if engine.dialect.name == "postgresql":
            driver.autocommit = True
            driver.execute(f"VACUUM {table}")
            driver.autocommit = False
        else:
            truncate_wal(driver)


def hold(db: sa.Connection, name: str) -> None:
    """Holds the lock `name` until the transaction ends. SQLite's transactions are alone anyway."""
    if db.dialect.name == "postgresql":
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(zlib.crc32(name.encode()))))


def upsert(
    db: sa.Connection, table: sa.Table, key: str, rows: Sequence[Mapping[str, Any]], newest_by: str = ""
) -> None:
    """Inserts rows; one whose `key` is there replaces that row, where `newest_by` says so only by a larger value."""
    if not rows:
        return
    insert = postgresql.insert(table) if db.dialect.name == "postgresql" else sqlite.insert(table)
    new = insert.excluded
    statement = insert.on_conflict_do_update(
        index_elements=[key],
        set_={column: new[column] for column in rows[0] if column != key},
        where=table.c[newest_by] < new[newest_by] if newest_by else None,
    )
    db.execute(statement, list(rows))
