"""Logs and SQL states copied between real backends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from headrace.cli.main import app
from headrace.cli.moving.backends import backends
from headrace.cli.moving.copying import copy_backends
from headrace.cli.moving.log_copy import copy_log, described
from headrace.ingest.storage import IngestStore, Refusal, StoredProduct, open_store
from headrace.runtime.errors import FailedPreconditionError
from headrace.runtime.eventlog import EventLog, LoggedRecord, Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


async def told(*arguments: str) -> Result:
    # a command runs a loop of its own
    return await asyncio.to_thread(command, *arguments)


def silent(offset: int, end: int) -> None:
    """Shows nothing."""


def record(name: str) -> Record:
    return Record("user-event", f"u:{name}", name, 1_000, name.encode())


@asynccontextmanager
async def opened(folder: Path, url: str = "") -> AsyncIterator[EventLog]:
    log = open_event_log(CommonSettings(data_dir=folder, event_log_url=url))
    yield log
    await log.close()


async def begin(folder: Path) -> None:
    """A small shop in `folder`: a log, a catalogue with two items, and a dead letter."""
    async with opened(folder) as log:
        for number in range(3):
            await log.append([record(f"{number}-{other}") for other in range(4)])
    store = open_store("", folder / "ingest")
    await store.migrate()
    await store.add_items(["lamp", "chair\0"])
    await store.apply([StoredProduct(1, b"\0chair", False, 5, 7, "c1")])
    await store.refuse([Refusal("d1", b"event", "price", (), 9)])
    await store.close()


async def everything(log: EventLog) -> list[LoggedRecord]:
    return await log.read(0, limit=100_000)


async def state_of(store: IngestStore) -> tuple[object, ...]:
    return await store.ordinals(), await store.products([0, 1]), await store.dead_letters(limit=10)


async def test_a_shop_moves_to_a_server_and_back_unchanged(tmp_path: Path, postgres_url: str) -> None:
    await begin(tmp_path / "a")
    embedded = backends(tmp_path / "a")
    server = backends(tmp_path / "a", event_log=postgres_url, catalogue=postgres_url, registry=postgres_url)
    there = await copy_backends(embedded, server, silent)
    back = backends(tmp_path / "b")
    again = await copy_backends(server, back, silent)

    assert there.log == again.log
    assert there.log.records == 12
    async with opened(tmp_path / "a") as first, opened(tmp_path / "b") as last:
        assert await everything(last) == await everything(first)
    first_store, last_store = open_store("", tmp_path / "a" / "ingest"), open_store("", tmp_path / "b" / "ingest")
    assert await state_of(last_store) == await state_of(first_store)
    await first_store.close()
    await last_store.close()


async def test_a_moved_catalogue_goes_on_giving_numbers(tmp_path: Path, postgres_url: str) -> None:
    await begin(tmp_path)
    await copy_backends(backends(tmp_path), backends(tmp_path, catalogue=postgres_url), silent)
    store = open_store(postgres_url, tmp_path)
    await store.refuse([Refusal("d2", b"event", "price", (), 9)])
    assert await store.add_items(["stool"]) == {"stool": 2}
    assert [letter.id for letter in await store.dead_letters(limit=10)] == [2, 1]
    await store.close()


async def test_a_copy_that_was_broken_off_goes_on(tmp_path: Path, postgres_url: str) -> None:
    await begin(tmp_path)
    async with opened(tmp_path) as source, opened(tmp_path, postgres_url) as target:
        await target.restore((await everything(source))[:5])
        shown: list[int] = []
        copied = await copy_log(source, target, lambda offset, end: shown.append(offset))
        assert shown == [12]
        assert copied == await described(source, 12)


async def test_a_log_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    await begin(tmp_path / "a")
    async with opened(tmp_path / "a") as source, opened(tmp_path / "b") as target:
        await target.append([record("other")])
        with pytest.raises(FailedPreconditionError, match="holds 1 offsets of something else"):
            await copy_log(source, target, silent)
        assert len(await everything(target)) == 1


async def test_rows_that_are_there_already_may_only_be_the_same(tmp_path: Path) -> None:
    await begin(tmp_path / "a")
    source, target = backends(tmp_path / "a"), backends(tmp_path / "b")
    first = await copy_backends(source, target, silent)
    assert await copy_backends(source, target, silent) == first
    other = open_store("", tmp_path / "b" / "ingest")
    await other.add_items(["table"])
    await other.close()
    with pytest.raises(FailedPreconditionError, match=r"items in .* has other rows already"):
        await copy_backends(source, target, silent)


async def test_tables_of_another_version_are_not_copied(tmp_path: Path) -> None:
    await begin(tmp_path / "a")
    engine = sa.create_engine(backends(tmp_path / "a").catalogue.url)
    with engine.begin() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = 'older'"))
    engine.dispose()
    with pytest.raises(FailedPreconditionError, match=r"are at older, not .*: let the service start once"):
        await copy_backends(backends(tmp_path / "a"), backends(tmp_path / "b"), silent)


async def test_a_backup_is_a_folder_that_comes_back_as_it_was(tmp_path: Path) -> None:
    shop, kept, restored = tmp_path / "shop", tmp_path / "kept", tmp_path / "restored"
    await begin(shop)
    (shop / "feature-store" / "snapshots").mkdir(parents=True)
    (shop / "feature-store" / "snapshots" / "state-7").write_bytes(b"state")

    made = await told("backup", str(kept), "--data-dir", str(shop), "--json")
    put_back = await told("restore", str(kept), "--data-dir", str(restored), "--json")

    assert made.exit_code == put_back.exit_code == 0, made.output + put_back.output
    facts = json.loads(made.stdout)
    assert (facts["records"], facts["rows_of_items"]) == (12, 2)
    assert json.loads(put_back.stdout)["sha256"] == facts["sha256"]
    assert (restored / "feature-store" / "snapshots" / "state-7").read_bytes() == b"state"
    async with opened(shop) as first, opened(restored) as last:
        assert await everything(last) == await everything(first)


async def test_a_damaged_or_unfinished_backup_is_refused(tmp_path: Path) -> None:
    shop, kept = tmp_path / "shop", tmp_path / "kept"
    await begin(shop)
    await told("backup", str(kept), "--data-dir", str(shop))
    data = bytearray((kept / "events.db").read_bytes())
    data[5_000] ^= 1
    (kept / "events.db").write_bytes(data)
    damaged = await told("restore", str(kept), "--data-dir", str(tmp_path / "new"))
    (kept / "backup.json").unlink()
    unfinished = await told("restore", str(kept), "--data-dir", str(tmp_path / "new"))

    assert (damaged.exit_code, unfinished.exit_code) == (1, 1)
    assert f"{kept / 'events.db'} is not what the backup held" in damaged.stderr
    assert "is no backup, or one that was broken off" in unfinished.stderr
    assert not (tmp_path / "new").exists()


async def test_nothing_is_written_over(tmp_path: Path) -> None:
    await begin(tmp_path / "shop")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    answer = await told("backup", str(tmp_path / "full"), "--data-dir", str(tmp_path / "shop"))
    assert answer.exit_code == 2
    assert "FOLDER: must be a new or an empty folder" in answer.stderr


def test_what_is_not_there_cannot_be_backed_up_or_moved(tmp_path: Path) -> None:
    backup = command("backup", str(tmp_path / "kept"), "--data-dir", str(tmp_path / "none"))
    nowhere = command("move", "--data-dir", str(tmp_path))
    assert (backup.exit_code, nowhere.exit_code) == (1, 2)
    assert "no event log at" in backup.stderr
    assert "at least one must be given" in nowhere.stderr
