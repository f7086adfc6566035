"""Looks at the databases behind the suite: whether they answer, keep what they acknowledge, and have our tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.cli.doctor.clock import clock
from headrace.cli.doctor.finding import Finding, failure, ok, warning
from headrace.runtime.eventlog.kafka_url import KafkaUrl, kafka_url
from headrace.runtime.settings import CommonSettings, SettingsError

if TYPE_CHECKING:
    from headrace.cli.moving.backends import SqlState

_MIGRATED = "the service brings it up to date when it starts"
_OLDEST_POSTGRES = 130_000
# on a server that has these off, power loss takes what was acknowledged
_MUST_BE_ON = ("fsync", "full_page_writes", "synchronous_commit")


def databases(common: CommonSettings) -> Iterator[Finding]:
    """The event log, the catalogue and the registry."""
    yield from _event_log(common)
    yield from _sql_states(common)


def _event_log(common: CommonSettings) -> Iterator[Finding]:
    if not common.event_log_url:
        yield from _embedded_log(common.data_dir / "events.db")
    elif common.event_log_url.startswith("postgres"):
        yield from _postgres("event log", common.event_log_url)
    else:
        yield _kafka("event log", kafka_url(common.event_log_url))


def _embedded_log(path: Path) -> Iterator[Finding]:
    if not path.is_file():
        yield ok("event log", f"SQLite, not begun yet: {path}")
        return
    yield _intact(path)


def _intact(path: Path) -> Finding:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            database.execute("PRAGMA query_only = on")
            said = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
            count, end = database.execute('SELECT count(*), max("offset") FROM records').fetchone()
    except sqlite3.Error as error:
        return failure("event log", f"{path}: {error}", "restore it from a backup")
    if said != "ok":
        return failure("event log", f"{path} is damaged: {said}", "restore it from a backup")
    return ok("event log", f"SQLite {sqlite3.sqlite_version}, {count:,} records up to offset {end or 0:,}, intact")


def _postgres(part: str, url: str) -> Iterator[Finding]:
    try:
        import psycopg
    except ModuleNotFoundError:
        yield failure(part, "the package psycopg is not installed", "pip install 'headrace[postgres]'")
        return
    try:
        with psycopg.connect(url, connect_timeout=5, autocommit=True) as database:
            yield from _served(part, database)
    except psycopg.Error as error:
        first = str(error).strip().splitlines()[0]
        yield failure(part, f"PostgreSQL does not answer: {first}", "check the URL, the server and the password")


def _kafka(part: str, url: KafkaUrl) -> Finding:
    try:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient
    except ModuleNotFoundError:
        return failure(part, "the package confluent-kafka is not installed", "pip install 'headrace[kafka]'")
    options: dict[str, str | int | float | bool] = {"bootstrap.servers": url.brokers, "log_level": 0, **url.options}
    try:
        # of all topics: one that is asked for by name might be made
        found = AdminClient(options).list_topics(timeout=5)
    except KafkaException as error:
        return failure(part, f"no broker answers: {error.args[0].str()}", "check the URL and the brokers")
    topic = found.topics.get(url.topic)
    if topic is None:
        return ok(part, f"{len(found.brokers)} brokers answer, {url} is not begun yet")
    if len(topic.partitions) != 1:
        return failure(part, f"{url} has {len(topic.partitions)} partitions", "name a topic of one partition")
    return ok(part, f"{url}: one partition, {len(topic.partitions[0].isrs)} in-sync replicas")


# psycopg's rows are tuples of anything
def _served(part: str, database: Any) -> Iterator[Finding]:
    def value(query: str) -> Any:
        return database.execute(query).fetchone()[0]

    version = f"PostgreSQL {value('SHOW server_version')}"
    if int(value("SHOW server_version_num")) < _OLDEST_POSTGRES:
        yield failure(part, version, "use PostgreSQL 13 or newer")
        return
    off = [name for name in _MUST_BE_ON if value(f"SHOW {name}") == "off"]
    # a server's own `off` is overruled by each of our connections for commits, not for the other two
    if off and off != ["synchronous_commit"]:
        yield failure(part, f"{version} runs with {', '.join(off)} off", "power loss would take what was acknowledged")
    else:
        yield ok(part, f"{version} answers")
    if value("SELECT pg_is_in_recovery()"):
        yield failure(part, "the server is a standby: it takes no writes", "name the primary in the URL")
    yield clock(f"{part}'s clock", float(value("SELECT extract(epoch FROM clock_timestamp())")))


def _sql_states(common: CommonSettings) -> Iterator[Finding]:
    from headrace.cli.moving.backends import configured

    for state in configured(common.data_dir).sql_states:
        yield _sql_state(state)


def _sql_state(state: SqlState) -> Finding:
    import sqlalchemy as sa

    from headrace.runtime.database import open_engine, revisions

    part = state.name
    try:
        if not state.is_begun:
            return ok(part, "SQLite, not begun yet")
        engine = open_engine(state.url)
        with engine.connect() as database:
            now, newest = revisions(database, state.migrations)
        engine.dispose()
    except (SettingsError, sa.exc.SQLAlchemyError, ModuleNotFoundError) as error:
        return failure(part, f"cannot be opened: {str(error).splitlines()[0]}", "check its URL and its server")
    if now == newest:
        return ok(part, f"{engine.dialect.name}, tables at {now}")
    return warning(part, f"tables at {now or 'nothing'}, this version needs {newest}", _MIGRATED)
