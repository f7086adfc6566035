"""Is every pod as the Pod Security level `restricted` wants it, and our own rules beyond it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.check.manifests import Fault, Manifests, Workload, label_of, of_kind, workloads

_MODES = ("enforce", "audit", "warn")
_SAFE_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_HOST = ("hostNetwork", "hostPID", "hostIPC")


def namespaces_are_restricted(manifests: Manifests) -> list[Fault]:
    """The namespace enforces, audits and warns at the level `restricted`, and there is one."""
    found = list(of_kind(manifests, "Namespace"))
    faults = [] if len(found) == 1 else [Fault("Namespace", "metadata.name", f"there are {len(found)}, not 1")]
    for namespace in found:
        for mode in _MODES:
            key = f"pod-security.kubernetes.io/{mode}"
            level = namespace["metadata"].get("labels", {}).get(key)
            if level != "restricted":
                faults.append(Fault(label_of(namespace), f"metadata.labels.{key}", f"must be restricted, got {level}"))
    return faults


def pods_are_restricted(manifests: Manifests) -> list[Fault]:
    """The whole level `restricted`, said and not left to defaults.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    return [fault for owner in workloads(manifests) for fault in (*_pod(owner), *_containers(owner), *_volumes(owner))]


def pods_keep_to_themselves(manifests: Manifests) -> list[Fault]:
    """Read-only roots with a /tmp to write to, no variables of other Services, a token where there is a Role for it."""
    faults = []
    bound = {
        subject["name"]
        for binding in of_kind(manifests, "RoleBinding", "ClusterRoleBinding")
        for subject in binding.get("subjects", [])
        if subject["kind"] == "ServiceAccount"
    }
    for owner in workloads(manifests):
        if owner.pod.get("enableServiceLinks") is not False:
            faults.append(Fault(owner.label, "spec.template.spec.enableServiceLinks", "must be false"))
        wanted = owner.pod.get("serviceAccountName") in bound
        if owner.pod.get("automountServiceAccountToken") is not wanted:
            field = "spec.template.spec.automountServiceAccountToken"
            faults.append(
                Fault(
                    owner.label, field, f"must be {str(wanted).lower()}: {'a' if wanted else 'no'} Role is bound to it"
                )
            )
        for container in owner.containers:
            field = f"containers[{container['name']}]"
            if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                faults.append(Fault(owner.label, f"{field}.securityContext.readOnlyRootFilesystem", "must be true"))
            if "/tmp" not in {mount["mountPath"] for mount in container.get("volumeMounts", [])}:
                faults.append(
                    Fault(owner.label, f"{field}.volumeMounts", "/tmp is missing: the root can't be written to")
                )
        faults += [
            Fault(owner.label, f"volumes[{volume['name']}].emptyDir.sizeLimit", "is missing")
            for volume in owner.pod.get("volumes", [])
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]
        ]
    return faults


def _pod(owner: Workload) -> Iterator[Fault]:
    context = owner.pod.get("securityContext", {})
    wanted: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for key, value in wanted.items():
        if context.get(key) != value:
            yield Fault(
                owner.label, f"spec.template.spec.securityContext.{key}", f"must be {value}, got {context.get(key)}"
            )
    if not context.get("runAsUser"):
        yield Fault(owner.label, "spec.template.spec.securityContext.runAsUser", "must be a number above 0")
    if context.get("sysctls"):
        yield Fault(owner.label, "spec.template.spec.securityContext.sysctls", "must be left out")
    for key in _HOST:
        if owner.pod.get(key):
            yield Fault(owner.label, f"spec.template.spec.{key}", "must be left out")


def _containers(owner: Workload) -> Iterator[Fault]:
    for container in owner.containers:
        field = f"containers[{container['name']}]"
        context = container.get("securityContext", {})
        for key, value in (("allowPrivilegeEscalation", False), ("privileged", False), ("runAsNonRoot", True)):
            if context.get(key) is not value:
                yield Fault(owner.label, f"{field}.securityContext.{key}", f"must be {str(value).lower()}")
        capabilities = context.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
            yield Fault(owner.label, f"{field}.securityContext.capabilities", "must drop ALL and add none")
        for key in ("procMount", "seLinuxOptions", "windowsOptions", "seccompProfile"):
            if key in context:
                yield Fault(owner.label, f"{field}.securityContext.{key}", "must be left out: the pod's holds")
        if context.get("runAsUser") == 0:
            yield Fault(owner.label, f"{field}.securityContext.runAsUser", "must not be 0")
        for port in container.get("ports", []):
            if port.get("hostPort"):
                yield Fault(owner.label, f"{field}.ports[{port.get('name')}].hostPort", "must be left out")


def _volumes(owner: Workload) -> Iterator[Fault]:
    for volume in owner.pod.get("volumes", []):
        for kind in set(volume) - {"name"} - _SAFE_VOLUMES:
            yield Fault(owner.label, f"volumes[{volume['name']}]", f"{kind} is not allowed")
