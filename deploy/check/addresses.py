"""Do the addresses that processes are told of lead to pods that exist, and to all that they must?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.check.manifests import (
    Fault,
    Manifests,
    Workload,
    does_match,
    environment_of,
    name_of,
    of_kind,
    servers,
    workloads,
)
from deploy.check.ports import service_ports

_ADDRESS = re.compile(r"_(ADDRESS|PEERS)$")


@dataclass(frozen=True, slots=True)
class Call:
    """One workload is told to call another, on a port."""

    caller: str
    variable: str
    host: str
    port: int
    # of the workload; empty: nothing is there
    callee: str


def calls(manifests: Manifests) -> list[Call]:
    """Who is told to call whom among our own processes."""
    return [call for server in servers(manifests) for call in _calls_of(server, manifests)]


def addresses_lead_somewhere(manifests: Manifests) -> list[Fault]:
    """Each host is a Service, or a pod of a StatefulSet that has that many, and each port one of that Service's."""
    known = service_ports(manifests)
    faults = []
    for call in calls(manifests):
        field = f"env.{call.variable}"
        service = call.host.rpartition(".")[2]
        if not call.callee:
            faults.append(Fault(call.caller, field, f"{call.host} is no Service, nor a pod of a StatefulSet"))
        elif call.port not in known[service]:
            faults.append(Fault(call.caller, field, f"{service} has no port {call.port}"))
    return faults


def addresses_name_every_replica(manifests: Manifests) -> list[Fault]:
    """All shards of index and feature store, in the order of their numbers, with all replicas of each."""
    faults = []
    for service in ("index", "feature-store"):
        shards = _shards(service, manifests)
        wanted = ";".join(",".join(addresses) for addresses in shards.values())
        variable = f"_{service.upper().replace('-', '_')}_ADDRESS"
        for server in servers(manifests):
            given = environment_of(server, manifests, {})
            faults += [
                Fault(server.label, f"env.{name}", f"must be {wanted}, got {value}")
                for name, value in given.items()
                if name.endswith(variable) and value != wanted
            ]
            if server.service == service == "index":
                faults += _own_shard(server, given, shards)
    return faults


def _own_shard(server: Workload, given: dict[str, str], shards: dict[str, list[str]]) -> list[Fault]:
    place = list(shards).index(server.name)
    wanted = {"HEADRACE_INDEX_SHARD": f"{place}/{len(shards)}", "HEADRACE_INDEX_PEERS": ",".join(shards[server.name])}
    return [
        Fault(server.label, f"env.{name}", f"must be {value}, got {given.get(name)}")
        for name, value in wanted.items()
        if given.get(name) != value
    ]


def _shards(service: str, manifests: Manifests) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for server in sorted(servers(manifests), key=lambda server: server.name):
        if server.service == service:
            port = next(port["containerPort"] for port in server.main["ports"] if port["name"] == "grpc")
            domain = server.manifest["spec"]["serviceName"]
            found[server.name] = [f"{pod}.{domain}:{port}" for pod in server.pod_names]
    return found


def _calls_of(server: Workload, manifests: Manifests) -> Iterator[Call]:
    for name, value in environment_of(server, manifests, {}).items():
        if _ADDRESS.search(name) and value:
            for address in re.split("[,;]", value):
                host, _, port = address.rpartition(":")
                yield Call(server.label, name, host, int(port), _callee(host, manifests))


def _callee(host: str, manifests: Manifests) -> str:
    """The label of the workload behind a name; empty: there is none."""
    pod, _, service = host.rpartition(".")
    for found in of_kind(manifests, "Service"):
        if name_of(found) != service:
            continue
        selector = {"matchLabels": found["spec"].get("selector", {})}
        for owner in workloads(manifests):
            is_pod = not pod or (owner.manifest["spec"].get("serviceName") == service and pod in owner.pod_names)
            if does_match(selector, owner.pod_labels) and is_pod:
                return owner.label
    return ""
