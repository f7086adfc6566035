"""Looks at what every process needs of its machine: Python, packages, and a disk that keeps what it synced."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from headrace.cli.doctor.finding import Finding, failure, ok, warning

# by extra: one module that nothing else brings
_EXTRAS = {
    "ingest": "sqlalchemy",
    "feature-store": "numpy",
    "trainer": "river",
    "index-cpu or index-gpu": "faiss",
    "ranker": "tantivy",
}
_NEWER_PYTHON = (3, 11)
_SYNCS = 20
_BLOCK = b"\0" * 4096
# a disk needs longer than this to keep anything; a RAM disk, or a cache that answers for the disk, does not
_QUICKEST_SYNC_MS = 0.02
_SLOW_SYNC_MS = 30.0
_LITTLE_BYTES = 2 << 30
_TOO_LITTLE_BYTES = 200 << 20


def machine(data_dir: Path) -> Iterator[Finding]:
    """What this process runs on, and the folder of the embedded backends."""
    yield _python()
    yield _extras()
    folder = _existing(data_dir)
    if not os.access(folder, os.W_OK):
        yield failure("data folder", f"{folder} cannot be written", "set HEADRACE_DATA_DIR to a folder that can")
        return
    yield _space(folder)
    yield _sync(folder)


def _python() -> Finding:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if sys.version_info < _NEWER_PYTHON:
        return failure("python", found, "install Python 3.11 or newer")
    return ok("python", found)


def _extras() -> Finding:
    missing = [extra for extra, module in _EXTRAS.items() if importlib.util.find_spec(module) is None]
    if missing:
        found = f"not installed: {', '.join(missing)}"
        return warning("packages", found, f"for those services: pip install 'headrace[{missing[0].split()[0]}]'")
    return ok("packages", "those of all five services are installed")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.is_dir())


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:,.1f} GiB free for {folder}"
    if free < _TOO_LITTLE_BYTES:
        return failure("disk", found, "make room: the log refuses events when it cannot grow")
    if free < _LITTLE_BYTES:
        return warning("disk", found, "make room, or keep events for less long")
    return ok("disk", found)


def _sync(folder: Path) -> Finding:
    try:
        times_ms = _sync_times_ms(folder)
    except OSError as error:
        return failure("sync", f"a file in {folder} cannot be synced: {error}", "use a local file system")
    usual, worst = statistics.median(times_ms), max(times_ms)
    found = f"a write is durable after {usual:.2f} ms, at worst {worst:.1f} ms of {_SYNCS}"
    if usual < _QUICKEST_SYNC_MS:
        remedy = "is it a RAM disk, or a cache that power loss empties? What is acknowledged would not be kept"
        return warning("sync", f"{found}: too quick for a disk", remedy)
    if usual > _SLOW_SYNC_MS:
        return warning("sync", found, "every acknowledgement waits for it: use a quicker disk")
    return ok("sync", found)


def _sync_times_ms(folder: Path) -> list[float]:
    times_ms = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), _BLOCK, 0)
            os.fsync(file.fileno())
            times_ms.append((time.perf_counter() - begun) * 1e3)
    return times_ms
