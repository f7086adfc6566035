"""Does a pod that goes, by whatever cause, leave callers unharmed?"""

from __future__ import annotations

from deploy.check.manifests import (
    Fault,
    Manifests,
    Workload,
    does_match,
    environment_of,
    label_of,
    of_kind,
    servers,
    workloads,
)

# between the end of the drain and the kill: closing parts, writing a snapshot
SAVING_S = 10.0
# until endpoints have reached every caller
LEAST_PRE_STOP_S = 3.0


def budgets_leave_room(manifests: Manifests) -> list[Fault]:
    """Every server has one PodDisruptionBudget, which lets at least one pod go and never all of several."""
    faults = []
    for server in servers(manifests):
        budgets = [
            budget
            for budget in of_kind(manifests, "PodDisruptionBudget")
            if does_match(budget["spec"]["selector"], server.pod_labels)
        ]
        if len(budgets) != 1:
            faults.append(
                Fault(server.label, "metadata.labels", f"{len(budgets)} PodDisruptionBudgets select it, not 1")
            )
        for budget in budgets:
            faults += _room(budget["spec"], label_of(budget), _least_replicas(server, manifests))
    return faults + [
        Fault(label_of(budget), "spec.selector", "selects nothing")
        for budget in of_kind(manifests, "PodDisruptionBudget")
        if not any(does_match(budget["spec"]["selector"], owner.pod_labels) for owner in workloads(manifests))
    ]


def autoscalers_are_where_they_may(manifests: Manifests) -> list[Fault]:
    """None on the index or the canary; what one scales exists, asks for CPU, and leaves its number to it."""
    faults = []
    known = {server.label: server for server in servers(manifests)}
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        server = known.get(f"{target['kind']}/{target['name']}")
        field = "spec.scaleTargetRef"
        if server is None:
            faults.append(Fault(label_of(scaler), field, f"there is no {target['kind']}/{target['name']} of ours"))
            continue
        if server.kind == "StatefulSet":
            faults.append(Fault(label_of(scaler), field, f"the replicas of {server.label} are named in addresses"))
        if _is_canary(server):
            faults.append(Fault(label_of(scaler), field, "the canary's share is the rollout's to change"))
        if "replicas" in server.manifest["spec"]:
            faults.append(Fault(server.label, "spec.replicas", f"each apply would undo what {label_of(scaler)} did"))
    return faults


def connections_grow_old(manifests: Manifests) -> list[Fault]:
    """What is scaled has a maximal age of connections, else new replicas get no calls."""
    scaled = {scaler["spec"]["scaleTargetRef"]["name"] for scaler in of_kind(manifests, "HorizontalPodAutoscaler")}
    faults = []
    for server in servers(manifests):
        name = f"HEADRACE_{server.service.upper().replace('-', '_')}_MAX_CONNECTION_AGE_S"
        if server.name in scaled and not float(environment_of(server, manifests, {}).get(name, "0")):
            faults.append(Fault(server.label, f"env.{name}", "is missing: callers would never find new replicas"))
    return faults


def drain_fits_the_grace_period(manifests: Manifests) -> list[Fault]:
    """preStop + drain + time to save what is held < terminationGracePeriodSeconds."""
    faults = []
    for server in servers(manifests):
        prefix = f"HEADRACE_{server.service.upper().replace('-', '_')}"
        pre_stop_s = _pre_stop_s(server)
        drain_s = float(environment_of(server, manifests, {}).get(f"{prefix}_DRAIN_S", "5"))
        grace_s = float(server.pod.get("terminationGracePeriodSeconds", 30))
        if pre_stop_s < LEAST_PRE_STOP_S:
            field = f"containers[{server.main['name']}].lifecycle.preStop"
            faults.append(Fault(server.label, field, f"must sleep {LEAST_PRE_STOP_S:g} s or more, got {pre_stop_s:g}"))
        if pre_stop_s + drain_s + SAVING_S >= grace_s:
            faults.append(
                Fault(
                    server.label,
                    "spec.template.spec.terminationGracePeriodSeconds",
                    f"must be above preStop {pre_stop_s:g} + drain {drain_s:g} + {SAVING_S:g} s, got {grace_s:g}",
                )
            )
    return faults


def stateful_sets_start_together(manifests: Manifests) -> list[Fault]:
    """Replicas of a StatefulSet wait for each other's copies, not for each other's turn; updates go by partition."""
    faults = []
    for server in servers(manifests):
        spec = server.manifest["spec"]
        if server.kind != "StatefulSet":
            continue
        if spec.get("podManagementPolicy") != "Parallel":
            faults.append(Fault(server.label, "spec.podManagementPolicy", "must be Parallel"))
        if "partition" not in spec.get("updateStrategy", {}).get("rollingUpdate", {}):
            faults.append(Fault(server.label, "spec.updateStrategy.rollingUpdate.partition", "is missing"))
    return faults


def pre_stop_command(workload: Workload) -> list[str]:
    """What runs in the container before SIGTERM; empty: nothing."""
    hook = workload.main.get("lifecycle", {}).get("preStop", {})
    return list(hook.get("exec", {}).get("command", []))


def _pre_stop_s(server: Workload) -> float:
    match pre_stop_command(server):
        case ["sleep", seconds]:
            return float(seconds)
        case _:
            return 0.0


def _room(spec: dict[str, int], label: str, replicas: int) -> list[Fault]:
    if "minAvailable" in spec:
        may_go, field = replicas - int(spec["minAvailable"]), "spec.minAvailable"
    else:
        may_go, field = int(spec["maxUnavailable"]), "spec.maxUnavailable"
    if may_go < 1:
        return [Fault(label, field, f"none of {replicas} replicas may go: no node could be drained")]
    if replicas > 1 and may_go >= replicas:
        return [Fault(label, field, f"all of {replicas} replicas may go at once")]
    return []


def _least_replicas(server: Workload, manifests: Manifests) -> int:
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        if scaler["spec"]["scaleTargetRef"]["name"] == server.name:
            return int(scaler["spec"].get("minReplicas", 1))
    return server.replicas


def _is_canary(server: Workload) -> bool:
    return any(
        entry["name"] == "HEADRACE_RANKER_TRACK" and entry.get("value") == "canary" for entry in server.main["env"]
    )
