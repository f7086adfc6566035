"""Rendered manifests, and the few questions that every lint asks of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# a manifest as Kubernetes takes it: JSON of any of a hundred kinds, so its values can't be typed
Manifest = dict[str, Any]
Manifests = Sequence[Manifest]

WORKLOADS = ("Deployment", "StatefulSet", "Job")
# processes of ours carry it
SERVICE_LABEL = "headrace.io/service"


class RenderError(Exception):
    """kustomize refuses a directory, and why."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What is wrong with one field of one object."""

    manifest: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.manifest}: {self.field}: {self.message}"


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that runs pods."""

    manifest: Manifest

    @property
    def label(self) -> str:
        return label_of(self.manifest)

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        return name_of(self.manifest)

    @property
    def replicas(self) -> int:
        return int(self.manifest["spec"].get("replicas", 1))

    @property
    def pod(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manifest["spec"]["template"]["spec"]
        return found

    @property
    def pod_labels(self) -> dict[str, str]:
        return dict(self.manifest["spec"]["template"].get("metadata", {}).get("labels", {}))

    @property
    def service(self) -> str:
        """Which of the five services it runs; empty: it is not ours."""
        return str(self.manifest["metadata"].get("labels", {}).get(SERVICE_LABEL, ""))

    @property
    def containers(self) -> list[dict[str, Any]]:
        return list(self.pod.get("initContainers", [])) + list(self.pod["containers"])

    @property
    def main(self) -> dict[str, Any]:
        """The container of the service itself."""
        found: dict[str, Any] = self.pod["containers"][0]
        return found

    @property
    def pod_names(self) -> list[str]:
        """Of a StatefulSet: `name-0` and so on."""
        return [f"{self.name}-{number}" for number in range(self.replicas)]


def rendered(directory: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes of a directory. RenderError: it refuses, or there is no kubectl."""
    if shutil.which("kubectl") is None:
        raise RenderError("no kubectl on PATH, whose kustomize renders manifests")
    # it keeps caches at home, which may not be writable, and asks no cluster
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            ["kubectl", "kustomize", str(directory)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": home, "KUBECONFIG": os.devnull},
        )
    # it warns of deprecated fields: they are faults here
    if done.returncode or done.stderr.strip():
        raise RenderError(f"{directory}: {done.stderr.strip()}")
    return [manifest for manifest in yaml.load_all(done.stdout, _Loader) if manifest]


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def of_kind(manifests: Manifests, *kinds: str) -> Iterator[Manifest]:
    return (manifest for manifest in manifests if manifest["kind"] in kinds)


def workloads(manifests: Manifests) -> list[Workload]:
    """All that run pods."""
    return [Workload(manifest) for manifest in of_kind(manifests, *WORKLOADS)]


def servers(manifests: Manifests) -> list[Workload]:
    """Our own workloads that listen: no Jobs, no database, no collector."""
    return [workload for workload in workloads(manifests) if workload.service and workload.kind != "Job"]


def name_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def label_of(manifest: Manifest) -> str:
    """`Deployment/ranker`."""
    return f"{manifest['kind']}/{name_of(manifest)}"


def names(manifests: Manifests, *kinds: str) -> set[str]:
    return {name_of(manifest) for manifest in of_kind(manifests, *kinds)}


def does_match(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector takes these labels; an empty one takes all, none at all takes none."""
    if selector is None:
        return False
    exact = selector.get("matchLabels", {})
    rules = selector.get("matchExpressions", [])
    return all(labels.get(key) == value for key, value in exact.items()) and all(_holds(rule, labels) for rule in rules)


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(rule["key"])
    match rule["operator"]:
        case "In":
            return value in rule["values"]
        case "NotIn":
            return value not in rule["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case other:
            raise ValueError(f"unknown operator {other!r} in a selector")


def environment_of(
    workload: Workload, manifests: Manifests, secrets: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """What the main container gets, with `secrets` (name → key → value) in place of what only the cluster knows."""
    found: dict[str, str] = {}
    maps = {name_of(manifest): manifest for manifest in of_kind(manifests, "ConfigMap")}
    for source in workload.main.get("envFrom", []):
        found |= maps.get(source["configMapRef"]["name"], {}).get("data", {})
    for entry in workload.main.get("env", []):
        found[entry["name"]] = _expanded(_value(entry, secrets), found)
    return found


def _value(entry: Mapping[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> str:
    if "value" in entry:
        return str(entry["value"])
    source = entry["valueFrom"]
    if "secretKeyRef" in source:
        wanted = source["secretKeyRef"]
        return secrets.get(wanted["name"], {}).get(wanted["key"], "")
    # the pod's number
    return "0"


def _expanded(value: str, before: Mapping[str, str]) -> str:
    for name, known in before.items():
        value = value.replace(f"$({name})", known)
    return value
