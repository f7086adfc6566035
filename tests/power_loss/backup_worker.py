"""Backs up a shop and puts it back, some times, and notes each when the command has ended: `folder journal shop`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import sqlite3
import sys
from pathlib import Path

from benchmarks.power_loss.journal import Acknowledgements
from headrace.cli.main import app
from headrace.ingest.storage import StoredProduct, open_store
from headrace.runtime.eventlog import Record
from headrace.runtime.eventlog.opening import open_event_log
from headrace.runtime.settings import CommonSettings

TIMES = 2
STATES = ("artifacts/releases/r1/weights", "feature-store/snapshots/state-1", "trainer/checkpoints/1/arrays")


def make_shop(folder: Path) -> None:
    """A small shop: a log, a catalogue, a delta log and files of states."""
    chance = random.Random(1)
    for name in (*STATES, "privacy.key"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(30_000))
    with contextlib.closing(sqlite3.connect(folder / "trainer" / "deltas.db")) as deltas:
        deltas.execute("CREATE TABLE deltas (number INTEGER)")
        deltas.execute("INSERT INTO deltas VALUES (7)")
        deltas.commit()
    asyncio.run(_fill(folder))


async def _fill(folder: Path) -> None:
    log = open_event_log(CommonSettings(data_dir=folder))
    await log.append([Record("user-event", f"u:{one}", f"e{one}", 1_000, bytes(500)) for one in range(40)])
    await log.close()
    store = open_store("", folder / "ingest")
    await store.migrate()
    await store.add_items(["lamp", "chair"])
    await store.apply([StoredProduct(1, b"chair", False, 5, 7, "c1")])
    await store.close()


def run(folder: Path, journal: Path, shop: Path) -> None:
    acknowledgements = Acknowledgements(journal)
    for number in range(TIMES):
        kept, restored = folder / f"kept-{number}", folder / f"restored-{number}"
        for what, words in (
            ("kept", ["backup", str(kept), "--data-dir", str(shop)]),
            ("restored", ["restore", str(kept), "--data-dir", str(restored)]),
        ):
            with contextlib.redirect_stdout(io.StringIO()):
                app([*words, "--json"], standalone_mode=False)
            acknowledgements.note(json.dumps([what, number]).encode())


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))
