"""May a process do in the cluster what it must, and no more?"""

from __future__ import annotations

from deploy.check.manifests import Fault, Manifests, label_of, of_kind

_ALLOWED = {
    "modelrollouts": {"get", "list", "watch", "create", "patch"},
    "modelrollouts/status": {"patch"},
    "events": {"create", "patch"},
    "deployments": {"get"},
}


def roles_are_least(manifests: Manifests) -> list[Fault]:
    """Roles are of this namespace, without wildcards, and over rollouts, events and the rankers' Deployments alone."""
    faults = [
        Fault(label_of(found), "kind", "must be of the namespace: Role, RoleBinding")
        for found in of_kind(manifests, "ClusterRole", "ClusterRoleBinding")
    ]
    for role in of_kind(manifests, "Role"):
        for place, rule in enumerate(role["rules"]):
            field = f"rules[{place}]"
            for resource in rule["resources"]:
                more = set(rule["verbs"]) - _ALLOWED.get(resource, set())
                if more:
                    faults.append(
                        Fault(
                            label_of(role), f"{field}.verbs", f"{', '.join(sorted(more))} on {resource} is not needed"
                        )
                    )
            if "deployments" in rule["resources"] and not rule.get("resourceNames"):
                faults.append(Fault(label_of(role), f"{field}.resourceNames", "must name the Deployments"))
    return faults
