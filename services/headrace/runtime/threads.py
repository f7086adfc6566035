"""Keeps numeric libraries to one thread a call: parallelism comes from requests.

`omp_set_num_threads` binds only the calling thread, so the environment is set before
numpy, torch or faiss are imported: call `limit_threads` first thing in a process.
"""

from __future__ import annotations

import os
import sys

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_HEAVY = ("numpy", "torch", "faiss")


def limit_threads(threads: int = 1) -> None:
    """Sets the thread count of numeric libraries for this process and its children.

    Raises RuntimeError when one of them is imported already: it would not listen.
    """
    if os.environ.get("OMP_NUM_THREADS") == str(threads):
        return
    loaded = [name for name in _HEAVY if name in sys.modules]
    if loaded:
        raise RuntimeError(f"limit_threads must run before {', '.join(loaded)} is imported")
    for name in _VARIABLES:
        os.environ[name] = str(threads)
