"""Do network policies let through the calls that the code makes, and nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.check.addresses import calls
from deploy.check.manifests import Fault, Manifests, Workload, does_match, of_kind, servers, workloads
from headrace.runtime.call_graph import EXTERNAL_CALLERS, OPERATOR, STOREFRONT, edges

_NAMESPACE = "headrace"


@dataclass(frozen=True, slots=True)
class _Pod:
    """What a policy sees of an end of a connection."""

    name: str
    labels: Mapping[str, str]
    namespace: Mapping[str, str]


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """A connection from one to another, on a port."""

    caller: str
    callee: str
    port: int

    def __str__(self) -> str:
        return f"{self.caller} → {self.callee}:{self.port}"


def policies_equal_the_call_graph(manifests: Manifests) -> list[Fault]:
    """With network policies, what they let through is the call graph: no call more, no call less."""
    if not any(of_kind(manifests, "NetworkPolicy")):
        return []
    wanted, allowed = wanted_edges(manifests), allowed_edges(manifests)
    missing = [
        Fault("NetworkPolicy", "spec", f"{edge} is called by the code and not let through") for edge in wanted - allowed
    ]
    more = [Fault("NetworkPolicy", "spec", f"{edge} is let through and called by nobody") for edge in allowed - wanted]
    return sorted(missing + more + _open_by_default(manifests))


def _open_by_default(manifests: Manifests) -> list[Fault]:
    """A pod that no policy of ours is about is to reach nothing, and nobody it."""
    denials = [
        policy
        for policy in of_kind(manifests, "NetworkPolicy")
        if policy["spec"]["podSelector"] == {} and set(policy["spec"]) == {"podSelector", "policyTypes"}
    ]
    if any(set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"} for policy in denials):
        return []
    return [Fault("NetworkPolicy", "spec.podSelector", "none denies everything by default")]


def addresses_equal_the_call_graph(manifests: Manifests) -> list[Fault]:
    """Who is told whose address, held against who calls whom in the code."""
    services = {server.label: server.service for server in servers(manifests)}
    told = {(services[call.caller], services.get(call.callee, "")) for call in calls(manifests)}
    called = {edge for edge in edges() if edge[0] not in EXTERNAL_CALLERS}
    if not any(call.variable == "HEADRACE_RANKER_CANARY_ADDRESS" for call in calls(manifests)):
        # the only other ranker is the canary track
        called -= {("ranker", "ranker")}
    return sorted(
        [Fault(caller, "env", f"is told of {callee}, which the code never calls") for caller, callee in told - called]
        + [Fault(caller, "env", f"calls {callee} and is not told where it is") for caller, callee in called - told]
    )


def wanted_edges(manifests: Manifests) -> set[Edge]:
    """The connections that the code makes, of the workloads that are there."""
    found = {Edge(call.caller, call.callee, call.port) for call in calls(manifests) if call.callee}
    tracks = {call.callee for call in calls(manifests) if call.variable == "HEADRACE_RANKER_CANARY_ADDRESS"}
    for caller, service in edges():
        for server in servers(manifests):
            # shops ask the door, and the door asks the canary track
            is_door = server.service == service and (caller == OPERATOR or server.label not in tracks)
            if caller in EXTERNAL_CALLERS and is_door:
                found.add(Edge(caller, server.label, _grpc_port(server)))
    # policies can't tell that two pods are of the same shard
    shards = [server for server in servers(manifests) if server.service == "index"]
    found |= {Edge(one.label, other.label, _grpc_port(other)) for one in shards for other in shards}
    return found | set(_backends(manifests))


def _backends(manifests: Manifests) -> Iterator[Edge]:
    """The database of the overlay dev, and the collector."""
    ports = {("postgres", "HEADRACE_EVENT_LOG_URL"): 5432, ("otel-collector", "HEADRACE_OTLP_ENDPOINT"): 4317}
    for (name, variable), port in ports.items():
        for backend in workloads(manifests):
            for owner in workloads(manifests):
                if backend.name == name and any(entry["name"] == variable for entry in owner.main.get("env", [])):
                    yield Edge(owner.label, backend.label, port)


def allowed_edges(manifests: Manifests) -> set[Edge]:
    """The connections among these workloads, and from shops and operators, that all policies together let through."""
    pods = {owner.label: _pod(owner) for owner in workloads(manifests)}
    own = {"kubernetes.io/metadata.name": _NAMESPACE}
    outside = {
        OPERATOR: _Pod(OPERATOR, {"headrace.io/operator": "true"}, own),
        STOREFRONT: _Pod(STOREFRONT, {}, {"kubernetes.io/metadata.name": "shop", "headrace.io/storefront": "true"}),
        "stranger": _Pod("stranger", {}, {"kubernetes.io/metadata.name": "default"}),
    }
    found = set()
    for owner in workloads(manifests):
        for port in _listening(owner):
            for name, caller in {**pods, **outside}.items():
                leaves = caller.namespace != own or _lets(manifests, "egress", caller, pods[owner.label], port)
                if leaves and _lets(manifests, "ingress", pods[owner.label], caller, port):
                    found.add(Edge(name, owner.label, port))
    return found


def _lets(manifests: Manifests, way: str, subject: _Pod, peer: _Pod, port: int) -> bool:
    """Whether the side of `subject` has a connection with `peer`: no policy selects it, or one of them allows it."""
    kind, end = ("Egress", "to") if way == "egress" else ("Ingress", "from")
    selecting = [
        policy["spec"]
        for policy in of_kind(manifests, "NetworkPolicy")
        if kind in policy["spec"]["policyTypes"] and does_match(policy["spec"]["podSelector"], subject.labels)
    ]
    rules = [rule for spec in selecting for rule in spec.get(way) or []]
    return not selecting or any(_has_port(rule, port) and _has_peer(rule.get(end), peer) for rule in rules)


def _has_port(rule: Mapping[str, Any], port: int) -> bool:
    given = rule.get("ports")
    return given is None or any(one.get("protocol", "TCP") == "TCP" and one.get("port", port) == port for one in given)


def _has_peer(peers: list[dict[str, Any]] | None, pod: _Pod) -> bool:
    if peers is None:
        return True
    return any(_is_peer(peer, pod) for peer in peers if "ipBlock" not in peer)


def _is_peer(peer: Mapping[str, Any], pod: _Pod) -> bool:
    if "namespaceSelector" in peer:
        is_near = does_match(peer["namespaceSelector"], pod.namespace)
    else:
        is_near = pod.namespace.get("kubernetes.io/metadata.name") == _NAMESPACE
    return is_near and ("podSelector" not in peer or does_match(peer["podSelector"], pod.labels))


def _pod(owner: Workload) -> _Pod:
    return _Pod(owner.label, owner.pod_labels, {"kubernetes.io/metadata.name": _NAMESPACE})


def _grpc_port(server: Workload) -> int:
    return int(next(port["containerPort"] for port in server.main["ports"] if port["name"] == "grpc"))


def _listening(owner: Workload) -> list[int]:
    """The ports that policies rule: not those of probes, which come from the node itself, nor those of metrics."""
    ports = owner.main.get("ports", [])
    return [port["containerPort"] for port in ports if port["name"] not in ("health", "metrics")]
