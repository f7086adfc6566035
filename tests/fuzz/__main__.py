"""Runs the fuzz tests with ever new seeds until the time is over or one fails: `python -m tests.fuzz SECONDS`.

A failing case is printed by Hypothesis and kept in .hypothesis/; put it beside the test as an `@example`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

_EXAMPLES = "400"


def main() -> int:
    end_s = time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else "300")
    rounds = 0
    while rounds == 0 or time.monotonic() < end_s:
        rounds += 1
        seed = random.SystemRandom().randrange(2**32)
        command = [sys.executable, "-m", "pytest", "tests/fuzz", f"--hypothesis-seed={seed}"]
        code = subprocess.run(command, env={**os.environ, "FUZZ_EXAMPLES": _EXAMPLES}, check=False).returncode
        if code:
            print(f"round {rounds} failed with seed {seed}")
            return code
    print(f"{rounds} rounds of {_EXAMPLES} examples a test, none failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
