"""Work in parts: some at a time, each in a process of its own, kept when done and not run again."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.arguments import base_parser
from headrace.datasets.source import data_folder
from headrace.runtime.errors import NotFoundError

Row = dict[str, object]

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc would give the blocks of each step back to the kernel and fetch them anew: a third of the time
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


@dataclass(frozen=True)
class Unit:
    """One method with one seed; `period` is 0 for a run through all of them."""

    method: str
    seed: int
    period: int = 0

    @property
    def key(self) -> str:
        return f"{self.method}/{self.seed}/{self.period}"


def run_units(
    units: Sequence[Unit], work: Callable[..., list[Row]], extra: tuple[object, ...], parts: Path, processes: int
) -> list[Row]:
    """Rows of `work(unit, *extra)` for all units, `processes` at a time; those that `parts` holds are not run again."""
    os.environ.update(_ENVIRONMENT)
    parts.parent.mkdir(parents=True, exist_ok=True)
    done = _kept(parts)
    missing = [unit for unit in units if unit.key not in done]
    with Progress(console=Console(stderr=True)) as progress, _pool(processes) as pool:
        task = progress.add_task("begun", total=len(units), completed=len(units) - len(missing))
        futures = {pool.submit(work, unit, *extra): unit for unit in missing}
        for future in as_completed(futures):
            unit = futures[future]
            done[unit.key] = future.result()
            with parts.open("a") as file:
                file.write(json.dumps({"key": unit.key, "rows": done[unit.key]}) + "\n")
            progress.update(task, advance=1, description=unit.key)
    return [row for unit in units for row in done[unit.key]]


def _pool(processes: int) -> ProcessPoolExecutor:
    # a process a unit: what it leaves in memory goes with it
    return ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_end_with_parent, max_tasks_per_child=1
    )


def _end_with_parent() -> None:
    """Lets a worker end when the benchmark is killed, which tells it nothing."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for processes that another one began"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _kept(parts: Path) -> dict[str, list[Row]]:
    if not parts.exists():
        return {}
    return {part["key"]: part["rows"] for part in map(json.loads, parts.read_text().splitlines())}


def parser_of(doc: str | None, names: Sequence[str]) -> argparse.ArgumentParser:
    """The options that every benchmark on a data set of several seeds has."""
    parser = base_parser(doc, quick="one seed, a small part of the work")
    parser.add_argument("--data", choices=names, required=True)
    parser.add_argument("--folder", type=Path, help="folder of the data sets (default: HEADRACE_DATA)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="how many trainings at a time, a core each")
    parser.add_argument("--plots", type=Path, help="folder for the figures")
    return parser


def required_folder(folder: Path | None) -> Path:
    """The data sets' folder. NotFoundError: none was named and none is beside."""
    found = data_folder(folder)
    if found is None:
        raise NotFoundError("name the data sets' folder with --folder or HEADRACE_DATA")
    return found
