"""The migrations of every service that keeps SQL state, forwards and backwards, with rows in the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from headrace.ingest import ledger, storage
from headrace.runtime.database import migrate, open_engine
from headrace.trainer import registry, tables


@dataclass(frozen=True)
class State:
    """One service's tables, what may be in them, and where Alembic notes their version."""

    metadata: sa.MetaData
    migrations: Path
    version_table: str
    rows: dict[str, dict[str, object]]


CATALOGUE = State(
    ledger.metadata,
    storage.MIGRATIONS,
    "alembic_version",
    {
        "items": {"ordinal": 0, "product_id": "boots\0ü"},
        "products": {
            "ordinal": 0,
            "product": b"\x00\xff",
            "deleted": True,
            "change_time_us": 2**62,
            "log_offset": 2**62,
            "change_id": "c",
        },
        "dead_letters": {
            "digest": "d",
            "event": b"\x00",
            "reason": "price",
            "violations": "[]",
            "refused_time_us": 2**62,
        },
        "folds": {"name": "catalogue", "log_offset": 2**62},
        "forgotten": {"digest": "ab", "until_us": 2**62},
        "erasures": {
            "id": "e-1",
            "request": "e",
            "number": 1,
            "time_us": 2**62,
            "log_offset": 2**62,
            "facts": "{}",
            "receipt": b"{}",
            "complete": True,
        },
    },
)
REGISTRY = State(
    tables.Base.metadata,
    registry.MIGRATIONS,
    "trainer_version",
    {
        "releases": {
            "number": 1,
            "parent": "",
            "lineage": "main",
            "space": "main-1",
            "dimension": 64,
            "delta_sequence": 2**62,
            "log_offset": 2**62,
            "feature_schema": "s" * 64,
            "parts": [{"name": "config.json", "sha256": "ab", "size_bytes": 3}],
            "metrics": {"loss": 0.5},
            "create_time_us": 2**62,
            "checksum": "c" * 64,
        },
        "counters": {"name": "release", "value": 2**62},
        "current_plan": {
            "id": 1,
            "sequence": 2**62,
            "stable": 1,
            "canary": 1,
            "shadow": 1,
            "rollout": "ro-000001",
            "salt": "s" * 64,
            "share_bp": 10_000,
            "hold": "undone",
        },
        "rollouts": {
            "number": 1,
            "kind": "increment",
            "track": "stable",
            "feeds": 0,
            "phase": "shadowing",
            "resumes_in": "",
            "release_number": 1,
            "baseline_number": 1,
            "lineage": "main",
            "salt": "s" * 64,
            "alpha": 0.05,
            "alpha_day": 20_000,
            "share_bp": 10_000,
            "step": 0,
            "step_time_us": 2**62,
            "steps_bp": [100, 10_000],
            "reason": "it began",
            "gates": [{"gate": 0}],
            "comparisons": [{"metric": "clicks_per_user", "lower": 0.5}],
            "marks": {},
            "create_time_us": 2**62,
            "phase_time_us": 2**62,
            "version": 2**62,
        },
        "rollout_transitions": {
            "number": 1,
            "rollout_number": 1,
            "from_phase": "validating",
            "to_phase": "shadowing",
            "actor": "controller",
            "reason": "it began",
            "evidence": "{}",
            "time_us": 2**62,
        },
        "leases": {"name": "decider", "holder": "h", "until_us": 2**62},
        "ranker_reports": {"ranker": "r", "start_us": 2**62, "received_us": 2**62, "report": {"answers": 1}},
        "webhook_cursors": {"url": "d" * 64, "number": 2**62},
    },
)


@pytest.fixture
def migrated(sql_url: str):
    """Brings the tables of a state to a version; each time through an engine of its own."""
    engines: list[sa.Engine] = []

    def to(state: State, version: str) -> sa.Engine:
        engines.append(open_engine(sql_url, "THE_URL"))
        with engines[-1].begin() as db:
            migrate(db, state.migrations, version)
        return engines[-1]

    yield to
    for engine in engines:
        engine.dispose()


Migrated = Callable[[State, str], sa.Engine]
states = pytest.mark.parametrize("state", [CATALOGUE, REGISTRY], ids=["catalogue", "registry"])


@states
def test_every_version_up_and_down_with_rows_in_the_tables(migrated: Migrated, state: State) -> None:
    engine = migrated(state, "head")
    for version in [*_versions_before_head(state), "base"]:
        _fill(engine, state)
        migrated(state, version)
        engine = migrated(state, "head")
    assert _content(engine, state) == {table: [] for table in state.rows}
    _fill(engine, state)
    assert {table: len(rows) for table, rows in _content(engine, state).items()} == dict.fromkeys(state.rows, 1)


@states
def test_the_migrated_tables_are_those_that_the_code_speaks_of(migrated: Migrated, state: State) -> None:
    with migrated(state, "head").begin() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True, "version_table": state.version_table})
        assert compare_metadata(context, state.metadata) == []


@states
def test_migrating_again_changes_nothing(migrated: Migrated, state: State) -> None:
    engine = migrated(state, "head")
    _fill(engine, state)
    before = _content(engine, state)
    assert _content(migrated(state, "head"), state) == before


def test_both_states_may_be_in_one_database(migrated: Migrated) -> None:
    for state in (CATALOGUE, REGISTRY):
        _fill(migrated(state, "head"), state)
    migrated(CATALOGUE, "base")
    assert _content(migrated(REGISTRY, "head"), REGISTRY)["current_plan"]


@states
def test_after_the_way_back_nothing_is_left(migrated: Migrated, state: State) -> None:
    _fill(migrated(state, "head"), state)
    engine = migrated(state, "base")
    assert set(sa.inspect(engine).get_table_names()) == {state.version_table}


def _versions_before_head(state: State) -> list[str]:
    scripts = ScriptDirectory(str(state.migrations)).walk_revisions()
    return [script.revision for script in scripts][1:]


def _fill(engine: sa.Engine, state: State) -> None:
    with engine.begin() as db:
        for name, row in state.rows.items():
            table = state.metadata.tables[name]
            # an older version may have kept it
            if db.execute(sa.select(table)).first() is None:
                db.execute(sa.insert(table), row)


def _content(engine: sa.Engine, state: State) -> dict[str, list[sa.Row]]:
    with engine.begin() as db:
        return {table: list(db.execute(sa.select(state.metadata.tables[table]))) for table in state.rows}
