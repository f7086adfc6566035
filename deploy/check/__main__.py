"""Holds the manifests against Kubernetes' schemas and our lints: `python -m deploy.check [OVERLAY]`.

Without an argument: every overlay of this repository with its components. With a directory: that overlay, which
is to be applied, so its images must be named by digests that are set.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.check.combinations import Combination, combinations, render
from deploy.check.lints import BEFORE_APPLYING, EVERYWHERE, IN_PRODUCTION, faults_of
from deploy.check.manifests import Fault, Manifest, RenderError, rendered
from deploy.check.schemas import schema_faults, versions

# kustomize is a process of its own: one a core
_AT_ONCE = 2


class Schemas:
    """Schema faults of manifests, each distinct one of which is looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, list[Fault]] = {}

    def faults(self, manifests: list[Manifest]) -> list[Fault]:
        return [fault for manifest in manifests for fault in self._of(manifest)]

    def _of(self, manifest: Manifest) -> list[Fault]:
        key = json.dumps(manifest, sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = [fault for version in versions() for fault in schema_faults(manifest, version)]
        return self._known[key]

    @property
    def checked(self) -> int:
        return len(self._known)


def main() -> int:
    """0 when there is no fault, else 1."""
    match sys.argv[1:]:
        case []:
            return _all()
        case [folder]:
            return _one(Path(folder))
        case _:
            sys.stderr.write("usage: python -m deploy.check [OVERLAY]\n")
            return 2


def _all() -> int:
    begun, schemas, found = time.monotonic(), Schemas(), 0
    chosen = list(combinations())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for combination, manifests in zip(chosen, pool.map(_render, chosen), strict=True):
            lints = EVERYWHERE + (IN_PRODUCTION if combination.is_production else ())
            faults = (
                [manifests] if isinstance(manifests, Fault) else schemas.faults(manifests) + faults_of(manifests, lints)
            )
            found += len(faults)
            _print(str(combination), faults)
    took_s = time.monotonic() - begun
    lints_run = len(EVERYWHERE) + len(IN_PRODUCTION)
    print(
        f"{len(chosen)} combinations, {schemas.checked} distinct objects against {len(versions())} versions of "
        f"Kubernetes ({versions()[0]} to {versions()[-1]}), {lints_run} lints: {found} faults, {took_s:.0f} s"
    )
    return 1 if found else 0


def _one(folder: Path) -> int:
    try:
        manifests = rendered(folder)
    except RenderError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    faults = Schemas().faults(manifests) + faults_of(manifests, EVERYWHERE + BEFORE_APPLYING)
    _print(str(folder), faults)
    print(f"{len(manifests)} objects, {len(faults)} faults")
    return 1 if faults else 0


def _render(combination: Combination) -> list[Manifest] | Fault:
    try:
        return render(combination)
    except RenderError as error:
        return Fault("kustomize", str(combination), str(error))


def _print(name: str, faults: list[Fault]) -> None:
    for fault in faults:
        print(f"{name}: {fault}")


if __name__ == "__main__":
    sys.exit(main())
