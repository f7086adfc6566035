"""A process that is told wrongly says so in one line that names the variable, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# runs a module as if some packages had not been installed
_RUN = """
import runpy, sys
module, *missing = sys.argv[1:]
sys.modules |= dict.fromkeys(missing)
sys.argv = [module, *"{arguments}".split()]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
LOG, CATALOGUE, REGISTRY = "HEADRACE_EVENT_LOG_URL", "HEADRACE_INGEST_DATABASE_URL", "HEADRACE_TRAINER_REGISTRY_URL"
KAFKA, POSTGRES = "kafka://127.0.0.1:1/shop", "postgresql://127.0.0.1:1/shop"
NO_KAFKA, NO_POSTGRES = "pip install 'headrace[kafka]'", "pip install 'headrace[postgres]'"


@dataclass(frozen=True)
class Case:
    """A module, what it is told, what is not installed, and what it must say."""

    module: str
    variable: str
    value: str
    says: str
    missing: tuple[str, ...] = ()
    arguments: str = ""


CASES = (
    Case("headrace.index", LOG, "kafka://broker/shop", "must be of the form kafka://host:port,host:port/topic"),
    Case("headrace.ingest", LOG, "mysql://host/shop", "must be empty or begin with postgresql://"),
    Case("headrace.ingest", LOG, "postgresql://host/shop?a=b", 'invalid URI query parameter: "a"'),
    Case("headrace.ingest", LOG, POSTGRES, NO_POSTGRES, ("psycopg",)),
    Case("headrace.ingest", CATALOGUE, "catalogue.db", "'catalogue.db' is no SQLAlchemy URL"),
    Case("headrace.ingest", CATALOGUE, POSTGRES, NO_POSTGRES, ("psycopg",)),
    Case("headrace.feature_store", LOG, KAFKA, NO_KAFKA, ("confluent_kafka",)),
    Case("headrace.ranker", LOG, KAFKA, NO_KAFKA, ("confluent_kafka",)),
    Case("headrace.trainer", REGISTRY, "mysql://host/shop", "mysql://… is not supported"),
    Case("headrace.cli.main", LOG, KAFKA, NO_KAFKA, ("confluent_kafka",), "train --from-scratch"),
    Case("headrace.cli.main", LOG, KAFKA, NO_KAFKA, ("confluent_kafka",), "up"),
    Case("headrace.cli.main", LOG, "kafka://broker/shop", "must be of the form kafka://", (), "up"),
)


def test_it_says_what_is_wrong_in_one_line_and_exits_with_2(tmp_path: Path) -> None:
    processes = [_started(case, tmp_path / str(number)) for number, case in enumerate(CASES)]
    for case, process in zip(CASES, processes, strict=True):
        _, said = process.communicate(timeout=120)
        assert process.returncode == 2, said
        assert said.count("\n") == 1, said
        assert case.variable in said
        assert case.says in said


def _started(case: Case, folder: Path) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment = kept | {"HEADRACE_DATA_DIR": str(folder), case.variable: case.value}
    for service in ("INGEST", "FEATURE_STORE", "TRAINER", "RANKER", "INDEX"):
        environment[f"HEADRACE_{service}_PORT"] = "0"
    command = [sys.executable, "-c", _RUN.replace("{arguments}", case.arguments), case.module, *case.missing]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
