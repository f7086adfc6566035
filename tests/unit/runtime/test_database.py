"""SQL state in SQLite and PostgreSQL alike."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from headrace.runtime.database import AnyText, open_engine, upsert
from headrace.runtime.settings import SettingsError

_table = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("name", AnyText, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)


def _things(engine: sa.Engine) -> list[tuple[str, int]]:
    with engine.begin() as db:
        return sorted((row.name, row.version) for row in db.execute(sa.select(_table)))


@pytest.fixture
def engine(sql_url: str):
    engine = open_engine(sql_url, "THE_URL")
    _table.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_upserted_rows_replace_those_with_their_key(engine: sa.Engine) -> None:
    with engine.begin() as db:
        upsert(db, _table, "name", [{"name": "a", "version": 5}])
        upsert(db, _table, "name", [{"name": "a", "version": 3}, {"name": "b", "version": 1}])
        upsert(db, _table, "name", [])
    assert _things(engine) == [("a", 3), ("b", 1)]


def test_an_older_row_never_replaces_a_newer_one(engine: sa.Engine) -> None:
    with engine.begin() as db:
        upsert(db, _table, "name", [{"name": "a", "version": 5}], newest_by="version")
        upsert(db, _table, "name", [{"name": "a", "version": 3}], newest_by="version")
        upsert(db, _table, "name", [{"name": "a", "version": 8}], newest_by="version")
    assert _things(engine) == [("a", 8)]


def test_any_text_comes_back_as_it_was_and_is_found_again(engine: sa.Engine) -> None:
    names = ["", "a\0b", "ä/1", "\U0001f600"]
    with engine.begin() as db:
        upsert(db, _table, "name", [{"name": name, "version": 1} for name in names])
        found = db.execute(sa.select(_table.c.name).where(_table.c.name.in_(names[1:]))).scalars().all()
    assert sorted(found) == sorted(names[1:])


@pytest.mark.parametrize("url", ["mysql://host/shop", "catalogue.db"])
def test_another_database_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError, match=r"mysql://… is not supported|'catalogue.db' is no SQLAlchemy URL"):
        open_engine(url, "THE_URL")
