"""Do names and numbers of ports lead to where somebody listens?"""

from __future__ import annotations

from typing import Any

from deploy.check.manifests import (
    Fault,
    Manifests,
    Workload,
    does_match,
    environment_of,
    label_of,
    name_of,
    of_kind,
    servers,
    workloads,
)

_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def named_ports_exist(manifests: Manifests) -> list[Fault]:
    """What Services, probes and monitors call a port by is a port of the pods behind it."""
    return _services(manifests) + _probes(manifests) + _monitors(manifests)


def probes_are_on_the_health_port(manifests: Manifests) -> list[Fault]:
    """Every server has three gRPC probes on HEALTH_PORT, which is never the port that may speak TLS."""
    faults = []
    for server in servers(manifests):
        ports = {port["name"]: port["containerPort"] for port in server.main.get("ports", [])}
        for probe in _PROBES:
            field = f"containers[{server.main['name']}].{probe}"
            asked = server.main.get(probe, {}).get("grpc")
            if asked is None:
                faults.append(Fault(server.label, field, "is no gRPC probe"))
            elif asked["port"] == ports.get("grpc"):
                faults.append(Fault(server.label, field, f"{asked['port']} is the port that speaks TLS: probes can't"))
            elif asked["port"] != ports.get("health"):
                faults.append(
                    Fault(server.label, field, f"{asked['port']} is not the health port {ports.get('health')}")
                )
    return faults


def probes_ask_the_right_question(manifests: Manifests) -> list[Fault]:
    """Liveness asks for `liveness`, which a start or a drain leaves alone; the others ask whether it serves."""
    faults = []
    for server in servers(manifests):
        for probe in _PROBES:
            wanted = "liveness" if probe == "livenessProbe" else ""
            asked = server.main.get(probe, {}).get("grpc", {}).get("service", "")
            if asked != wanted:
                field = f"containers[{server.main['name']}].{probe}.grpc.service"
                faults.append(Fault(server.label, field, f"must be {wanted!r}, got {asked!r}"))
    return faults


def ports_are_those_of_the_settings(manifests: Manifests) -> list[Fault]:
    """A server listens where its container says, on both ports, and on all addresses."""
    faults = []
    for server in servers(manifests):
        given = environment_of(server, manifests, {})
        prefix = "HEADRACE_" + server.service.upper().replace("-", "_")
        ports = {port["name"]: str(port["containerPort"]) for port in server.main.get("ports", [])}
        wanted = {"PORT": ports.get("grpc"), "HEALTH_PORT": ports.get("health"), "HOST": "0.0.0.0"}
        faults += [
            Fault(server.label, f"env.{prefix}_{name}", f"must be {value}, got {given.get(f'{prefix}_{name}')}")
            for name, value in wanted.items()
            if given.get(f"{prefix}_{name}") != value
        ]
    return faults


def _services(manifests: Manifests) -> list[Fault]:
    faults = []
    for service in of_kind(manifests, "Service"):
        behind = _behind(service["spec"].get("selector", {}), manifests)
        for place, port in enumerate(service["spec"]["ports"]):
            target = port.get("targetPort", port["port"])
            faults += [
                Fault(label_of(service), f"spec.ports[{place}].targetPort", f"{owner.label} has no port {target!r}")
                for owner in behind
                if target not in _ports(owner)
            ]
    return faults


def _probes(manifests: Manifests) -> list[Fault]:
    faults = []
    for owner in workloads(manifests):
        for container in owner.containers:
            for probe in _PROBES:
                told = container.get(probe, {})
                for way in ("grpc", "httpGet", "tcpSocket"):
                    port = told.get(way, {}).get("port")
                    if port is not None and port not in _ports_of(container):
                        field = f"containers[{container['name']}].{probe}.{way}.port"
                        faults.append(Fault(owner.label, field, f"there is no port {port!r}"))
    return faults


def _monitors(manifests: Manifests) -> list[Fault]:
    faults = []
    for monitor in of_kind(manifests, "ServiceMonitor"):
        found = [
            service
            for service in of_kind(manifests, "Service")
            if does_match(monitor["spec"]["selector"], service["metadata"].get("labels", {}))
        ]
        known = {port["name"] for service in found for port in service["spec"]["ports"]}
        faults += [
            Fault(
                label_of(monitor),
                f"spec.endpoints[{place}].port",
                f"no Service that it selects has {endpoint['port']!r}",
            )
            for place, endpoint in enumerate(monitor["spec"]["endpoints"])
            # the collector is another component's: without it there is nothing to fetch
            if found and endpoint["port"] not in known
        ]
    return faults


def _behind(selector: dict[str, str], manifests: Manifests) -> list[Workload]:
    return [owner for owner in workloads(manifests) if does_match({"matchLabels": selector}, owner.pod_labels)]


def _ports(owner: Workload) -> set[Any]:
    return {port for container in owner.containers for port in _ports_of(container)}


def _ports_of(container: dict[str, Any]) -> set[Any]:
    given = container.get("ports", [])
    return {port["containerPort"] for port in given} | {port.get("name") for port in given}


def service_ports(manifests: Manifests) -> dict[str, set[int]]:
    """Service → the ports that it can be called on."""
    return {
        name_of(service): {port["port"] for port in service["spec"]["ports"]}
        for service in of_kind(manifests, "Service")
    }
