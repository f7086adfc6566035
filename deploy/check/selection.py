"""Do selectors find the pods that they are meant for?"""

from __future__ import annotations

from collections import Counter

from deploy.check.manifests import Fault, Manifests, does_match, label_of, name_of, of_kind, servers, workloads


def selectors_match_templates(manifests: Manifests) -> list[Fault]:
    """A workload's selector takes its own pods, and nobody else's."""
    faults = []
    for owner in workloads(manifests):
        selector = owner.manifest["spec"].get("selector")
        if selector is None:
            # a Job makes its own
            continue
        if not does_match(selector, owner.pod_labels):
            faults.append(
                Fault(owner.label, "spec.selector", f"does not match its template's labels {owner.pod_labels}")
            )
        faults += [
            Fault(owner.label, "spec.selector", f"takes the pods of {other.label} too")
            for other in workloads(manifests)
            if other is not owner and other.label != owner.label and does_match(selector, other.pod_labels)
        ]
        for place, spread in enumerate(owner.pod.get("topologySpreadConstraints", [])):
            if not does_match(spread.get("labelSelector"), owner.pod_labels):
                field = f"spec.template.spec.topologySpreadConstraints[{place}].labelSelector"
                faults.append(Fault(owner.label, field, "counts other pods than its own"))
    return faults


def services_select_one_workload(manifests: Manifests) -> list[Fault]:
    """A Service stands before exactly one workload, and every server has one."""
    faults = []
    served: Counter[str] = Counter()
    for service in of_kind(manifests, "Service"):
        selector = {"matchLabels": service["spec"].get("selector", {})}
        taken = [owner.label for owner in workloads(manifests) if does_match(selector, owner.pod_labels)]
        served.update(taken)
        if len(taken) != 1:
            faults.append(
                Fault(label_of(service), "spec.selector", f"selects {len(taken)} workloads: {', '.join(taken)}")
            )
    faults += [
        Fault(server.label, "metadata.name", f"{served[server.label]} Services stand before it, not 1")
        for server in servers(manifests)
        if served[server.label] != 1
    ]
    return faults


def services_show_every_replica(manifests: Manifests) -> list[Fault]:
    """Services of ours are headless, since callers balance by themselves, and say which protocol they speak."""
    ours = {server.name: server for server in servers(manifests)}
    faults = []
    for service in of_kind(manifests, "Service"):
        server = ours.get(name_of(service))
        if server is None:
            continue
        if service["spec"].get("clusterIP") != "None":
            faults.append(
                Fault(label_of(service), "spec.clusterIP", "must be None: one address hides all replicas but one")
            )
        protocol = (
            "https"
            if any(entry["name"] == "HEADRACE_TLS_CERT" for entry in server.main["env"])
            else "kubernetes.io/h2c"
        )
        faults += [
            Fault(
                label_of(service),
                f"spec.ports[{place}].appProtocol",
                f"must be {protocol}, got {port.get('appProtocol')}",
            )
            for place, port in enumerate(service["spec"]["ports"])
            if port.get("appProtocol") != protocol
        ]
    return faults
