from __future__ import annotations

import subprocess
import sys


def run(code: str) -> subprocess.CompletedProcess[str]:
    # an empty environment: the parent's own limits must not show
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={}, check=False)


def test_the_limit_reaches_numeric_libraries() -> None:
    code = """
from headrace.runtime.threads import limit_threads
limit_threads(); limit_threads()
import os
print(os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"])
"""
    assert run(code).stdout == "1 1\n"


def test_a_limit_that_comes_too_late_is_an_error() -> None:
    done = run("import numpy\nfrom headrace.runtime.threads import limit_threads\nlimit_threads()")
    assert "limit_threads must run before numpy is imported" in done.stderr
