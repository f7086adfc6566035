"""The one form in which every benchmark keeps its results."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Bar:
    """A goal with what was measured. `goal` reads "<= 200" or ">= 0.2336"."""

    name: str
    goal: str
    value: float
    met: bool

    @classmethod
    def at_most(cls, name: str, limit: float, value: float) -> Bar:
        return cls(name, f"<= {limit:g}", value, value <= limit)

    @classmethod
    def at_least(cls, name: str, limit: float, value: float) -> Bar:
        return cls(name, f">= {limit:g}", value, value >= limit)


@dataclass(frozen=True)
class Result:
    """What a benchmark found: one row a method and data set, and the bars."""

    benchmark: str
    settings: Mapping[str, object]
    seeds: Sequence[int]
    rows: Sequence[Mapping[str, object]]
    bars: Sequence[Bar]

    def write(self, path: Path) -> None:
        """Writes the JSON form, with commit, date and hardware, and prints the bars."""
        document = {
            "benchmark": self.benchmark,
            "commit": _commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": hardware(),
            "settings": dict(self.settings),
            "seeds": list(self.seeds),
            "rows": [dict(row) for row in self.rows],
            "bars": [asdict(bar) for bar in self.bars],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n")
        self._show(path)

    def _show(self, path: Path) -> None:
        table = Table("bar", "goal", "measured", "met", title=f"{self.benchmark} → {path}")
        for bar in self.bars:
            table.add_row(bar.name, bar.goal, f"{bar.value:.4g}", "yes" if bar.met else "NO")
        Console().print(table)


def hardware() -> dict[str, object]:
    """What this ran on, as far as numbers depend on it."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
