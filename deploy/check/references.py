"""Does everything that an object names exist?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.check.environment import known_secrets
from deploy.check.manifests import Fault, Manifests, Workload, does_match, label_of, name_of, names, of_kind, workloads


def references_resolve(manifests: Manifests) -> list[Fault]:
    """ConfigMaps, Secrets (those of secrets.yaml), ServiceAccounts, claims, Services, Roles and volumes exist."""
    faults = [fault for owner in workloads(manifests) for fault in _of_workload(owner, manifests)]
    faults += _bindings(manifests)
    faults += _policies(manifests)
    return faults + [
        Fault(label_of(account), "metadata.name", "no pod runs as it")
        for account in of_kind(manifests, "ServiceAccount")
        if name_of(account) not in {owner.pod.get("serviceAccountName") for owner in workloads(manifests)}
    ]


def names_are_unique(manifests: Manifests) -> list[Fault]:
    """No two objects of one kind and name."""
    seen: set[str] = set()
    faults = []
    for manifest in manifests:
        label = label_of(manifest)
        if label in seen:
            faults.append(Fault(label, "metadata.name", "is there twice"))
        seen.add(label)
    return faults


def _of_workload(owner: Workload, manifests: Manifests) -> Iterator[Fault]:
    account = owner.pod.get("serviceAccountName")
    if account not in names(manifests, "ServiceAccount"):
        yield Fault(owner.label, "spec.template.spec.serviceAccountName", f"there is no ServiceAccount {account!r}")
    domain = owner.manifest["spec"].get("serviceName")
    if owner.kind == "StatefulSet" and domain not in names(manifests, "Service"):
        yield Fault(owner.label, "spec.serviceName", f"there is no Service {domain!r}")
    for volume in owner.pod.get("volumes", []):
        yield from _volume(owner, volume, manifests)
    yield from _mounts(owner)
    for container in owner.containers:
        for source in container.get("envFrom", []):
            yield from _config_map(
                owner, f"containers[{container['name']}].envFrom", source["configMapRef"]["name"], manifests
            )
        for entry in container.get("env", []):
            if "secretKeyRef" in entry.get("valueFrom", {}):
                wanted = entry["valueFrom"]["secretKeyRef"]
                yield from _secret(owner, f"env.{entry['name']}", wanted["name"], wanted["key"])


def _volume(owner: Workload, volume: dict[str, Any], manifests: Manifests) -> Iterator[Fault]:
    field = f"volumes[{volume['name']}]"
    if "configMap" in volume:
        yield from _config_map(owner, field, volume["configMap"]["name"], manifests)
    if "secret" in volume:
        yield from _secret(owner, field, volume["secret"]["secretName"], "")
    if "persistentVolumeClaim" in volume:
        claim = volume["persistentVolumeClaim"]["claimName"]
        if claim not in names(manifests, "PersistentVolumeClaim"):
            yield Fault(owner.label, field, f"there is no PersistentVolumeClaim {claim!r}")


def _mounts(owner: Workload) -> Iterator[Fault]:
    there = {volume["name"] for volume in owner.pod.get("volumes", [])}
    there |= {name_of(claim) for claim in owner.manifest["spec"].get("volumeClaimTemplates", [])}
    mounts = [mount for container in owner.containers for mount in container.get("volumeMounts", [])]
    for mount in mounts:
        if mount["name"] not in there:
            yield Fault(owner.label, f"volumeMounts[{mount['mountPath']}]", f"there is no volume {mount['name']!r}")
    for unused in sorted(there - {mount["name"] for mount in mounts}):
        yield Fault(owner.label, f"volumes[{unused}]", "nothing mounts it")
    files = [mount["mountPath"] for mount in mounts]
    for entry in owner.main.get("env", []):
        path = str(entry.get("value", ""))
        is_mounted = any(path == folder or path.startswith(folder + "/") for folder in files)
        if path.startswith("/") and entry["name"].startswith("HEADRACE_") and not is_mounted:
            yield Fault(owner.label, f"env.{entry['name']}", f"{path} is on no volume")


def _config_map(owner: Workload, field: str, name: str, manifests: Manifests) -> Iterator[Fault]:
    if name not in names(manifests, "ConfigMap"):
        yield Fault(owner.label, field, f"there is no ConfigMap {name!r}")


def _secret(owner: Workload, field: str, name: str, key: str) -> Iterator[Fault]:
    known = known_secrets()
    if name not in known:
        yield Fault(owner.label, field, f"Secret {name!r} is not in secrets.yaml")
    elif key and key not in known[name]:
        yield Fault(owner.label, field, f"Secret {name!r} has no key {key!r} in secrets.yaml")


def _bindings(manifests: Manifests) -> list[Fault]:
    faults = []
    for binding in of_kind(manifests, "RoleBinding"):
        role = binding["roleRef"]
        if role["name"] not in names(manifests, role["kind"]):
            faults.append(Fault(label_of(binding), "roleRef.name", f"there is no {role['kind']} {role['name']!r}"))
        faults += [
            Fault(label_of(binding), "subjects", f"there is no ServiceAccount {subject['name']!r}")
            for subject in binding["subjects"]
            if subject["name"] not in names(manifests, "ServiceAccount")
        ]
    return faults


# of objects that another component or overlay brings
_OPTIONAL = frozenset({"postgres", "otel-collector", "ranker-canary"})


def _policies(manifests: Manifests) -> list[Fault]:
    return [
        Fault(label_of(policy), "spec.podSelector", "selects nothing")
        for policy in of_kind(manifests, "NetworkPolicy")
        if name_of(policy) not in {*_OPTIONAL, "operator"}
        and not any(does_match(policy["spec"]["podSelector"], owner.pod_labels) for owner in workloads(manifests))
    ]
