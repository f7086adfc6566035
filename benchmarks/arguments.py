"""The options that benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path


def base_parser(doc: str | None, quick: str, seed: int = 20) -> argparse.ArgumentParser:
    """`--quick`, of which `quick` says what it leaves out, `--seed` and `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--seed", type=int, default=seed, help="the first seed, where there are several")
    parser.add_argument("--json", type=Path, required=True)
    return parser
