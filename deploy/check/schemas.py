"""The schemas of the Kubernetes versions that kubernetes-validate carries, each read once."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import kubernetes_validate
from jsonschema import Draft202012Validator
from kubernetes_validate import utils
from referencing import Registry, Resource

from deploy.check.manifests import Fault, Manifest, label_of

_FOLDER = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
# kinds of operators that a component is for: their schemas are theirs
_FOREIGN = ("monitoring.coreos.com/",)


def versions() -> list[str]:
    """`1.25.0` and so on, oldest first."""
    return list(dict.fromkeys(utils.all_versions()))


def schema_faults(manifest: Manifest, version: str) -> list[Fault]:
    """What the strict schema of a version has against an object: unknown fields too."""
    if manifest["apiVersion"].startswith(_FOREIGN):
        return []
    path = _path(manifest["kind"], manifest["apiVersion"], version)
    if not path.exists():
        return [Fault(label_of(manifest), "apiVersion", f"Kubernetes {version} has no {manifest['apiVersion']}")]
    return [
        Fault(
            label_of(manifest), ".".join(map(str, error.absolute_path)), f"Kubernetes {version}: {error.message[:200]}"
        )
        for error in _validator(path).iter_errors(manifest)
    ]


def _path(kind: str, api_version: str, version: str) -> Path:
    # rbac.authorization.k8s.io/v1 → rbac-v1
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    return _FOLDER / f"v{version}-local-strict" / f"{kind.lower()}-{short}.json"


@cache
def _validator(path: Path) -> Draft202012Validator:
    schema = json.loads(path.read_text())
    registry: Registry[object] = Resource.from_contents(schema) @ _definitions(path.parent)
    return Draft202012Validator(schema, registry=registry)


@cache
def _definitions(folder: Path) -> Registry[object]:
    definitions = json.loads((folder / "_definitions.json").read_text())
    registry: Registry[object] = Registry()
    return Resource.from_contents(definitions) @ registry
