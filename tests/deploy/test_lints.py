"""Each lint finds nothing in what we ship, and finds the fault that is put there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.check import lints
from deploy.check.lints import EVERYWHERE, IN_PRODUCTION, Lint, faults_of
from deploy.check.manifests import Manifest, label_of


class Shop:
    """Manifests that a test may damage."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = copy.deepcopy(manifests)

    def one(self, label: str) -> Manifest:
        return next(manifest for manifest in self.manifests if label_of(manifest) == label)

    def spec(self, label: str) -> dict[str, Any]:
        found: dict[str, Any] = self.one(label)["spec"]
        return found

    def pod(self, label: str) -> dict[str, Any]:
        found: dict[str, Any] = self.spec(label)["template"]["spec"]
        return found

    def container(self, label: str) -> dict[str, Any]:
        found: dict[str, Any] = self.pod(label)["containers"][0]
        return found

    def set(self, label: str, name: str, value: str) -> None:
        entries = self.container(label)["env"]
        entries[:] = [entry for entry in entries if entry["name"] != name] + [{"name": name, "value": value}]

    def unset(self, label: str, name: str) -> None:
        entries = self.container(label)["env"]
        assert any(entry["name"] == name for entry in entries)
        entries[:] = [entry for entry in entries if entry["name"] != name]

    def drop(self, label: str) -> None:
        self.manifests.remove(self.one(label))

    def add(self, like: str, name: str) -> None:
        other = copy.deepcopy(self.one(like))
        other["metadata"]["name"] = name
        self.manifests.append(other)


@dataclass(frozen=True)
class Damage:
    """A fault, and what is to be said of it: by which lint, of which object, and of which field."""

    lint: Lint
    do: Callable[[Shop], object]
    manifest: str
    field: str


RANKER, DOOR, INDEX = "Deployment/ranker", "Deployment/ingest", "StatefulSet/index-0"
CONTAINER = "containers[service]"


def _probe(name: str, **told: Any) -> Callable[[Shop], object]:
    return lambda shop: shop.container(RANKER)[name]["grpc"].update(told)


def _rule(policy: str) -> Callable[[Shop], dict[str, Any]]:
    return lambda shop: shop.spec(f"NetworkPolicy/{policy}")


DAMAGES = [
    Damage(lints.names_are_unique, lambda s: s.add(DOOR, "ingest"), DOOR, "metadata.name"),
    Damage(
        lints.selectors_match_templates,
        lambda s: s.spec(RANKER)["selector"]["matchLabels"].update(tier="x"),
        RANKER,
        "spec.selector",
    ),
    Damage(
        lints.selectors_match_templates,
        lambda s: s.spec(RANKER).update(selector={"matchLabels": {"headrace.io/service": "ranker"}}),
        RANKER,
        "spec.selector",
    ),
    Damage(
        lints.selectors_match_templates,
        lambda s: s.pod(INDEX)["topologySpreadConstraints"][1].update(labelSelector={"matchLabels": {"a": "b"}}),
        INDEX,
        "spec.template.spec.topologySpreadConstraints[1].labelSelector",
    ),
    Damage(
        lints.services_select_one_workload,
        lambda s: s.spec("Service/ranker").update(selector={"headrace.io/service": "ranker"}),
        "Service/ranker",
        "spec.selector",
    ),
    Damage(
        lints.services_select_one_workload, lambda s: s.drop("Service/index-1"), "StatefulSet/index-1", "metadata.name"
    ),
    Damage(
        lints.services_show_every_replica,
        lambda s: s.spec("Service/ranker").pop("clusterIP"),
        "Service/ranker",
        "spec.clusterIP",
    ),
    Damage(
        lints.services_show_every_replica,
        lambda s: s.spec("Service/ranker")["ports"][0].update(appProtocol="http"),
        "Service/ranker",
        "spec.ports[0].appProtocol",
    ),
    Damage(
        lints.named_ports_exist,
        lambda s: s.spec("Service/ranker")["ports"][0].update(targetPort="rpc"),
        "Service/ranker",
        "spec.ports[0].targetPort",
    ),
    Damage(lints.named_ports_exist, _probe("startupProbe", port=9000), RANKER, f"{CONTAINER}.startupProbe.grpc.port"),
    Damage(
        lints.named_ports_exist,
        lambda s: s.spec("ServiceMonitor/headrace")["endpoints"][0].update(port="web"),
        "ServiceMonitor/headrace",
        "spec.endpoints[0].port",
    ),
    Damage(
        lints.ports_are_those_of_the_settings,
        lambda s: s.set(RANKER, "HEADRACE_RANKER_PORT", "1"),
        RANKER,
        "env.HEADRACE_RANKER_PORT",
    ),
    Damage(
        lints.ports_are_those_of_the_settings,
        lambda s: s.unset(RANKER, "HEADRACE_RANKER_HOST"),
        RANKER,
        "env.HEADRACE_RANKER_HOST",
    ),
    Damage(
        lints.probes_are_on_the_health_port, _probe("livenessProbe", port=7405), RANKER, f"{CONTAINER}.livenessProbe"
    ),
    Damage(
        lints.probes_are_on_the_health_port,
        lambda s: s.container(DOOR).pop("startupProbe"),
        DOOR,
        f"{CONTAINER}.startupProbe",
    ),
    Damage(
        lints.probes_ask_the_right_question,
        _probe("livenessProbe", service=""),
        RANKER,
        f"{CONTAINER}.livenessProbe.grpc.service",
    ),
    Damage(
        lints.requests_are_within_limits,
        lambda s: s.container(RANKER)["resources"]["requests"].update(memory="5Gi"),
        RANKER,
        f"{CONTAINER}.resources.requests.memory",
    ),
    Damage(
        lints.requests_are_within_limits,
        lambda s: s.container(RANKER)["resources"].pop("limits"),
        RANKER,
        f"{CONTAINER}.resources.limits.memory",
    ),
    Damage(
        lints.gpus_are_for_who_asks,
        lambda s: s.container(INDEX)["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
        INDEX,
        "nodeSelector",
    ),
    Damage(
        lints.gpus_are_for_who_asks,
        lambda s: s.pod(RANKER).update(nodeSelector={"nvidia.com/gpu.present": "true"}),
        RANKER,
        "nodeSelector",
    ),
    Damage(
        lints.budgets_leave_room,
        lambda s: s.spec("PodDisruptionBudget/index-0").update(maxUnavailable=2),
        "PodDisruptionBudget/index-0",
        "spec.maxUnavailable",
    ),
    Damage(
        lints.budgets_leave_room,
        lambda s: s.one("PodDisruptionBudget/index-0").update(
            spec={"minAvailable": 2, "selector": s.spec("PodDisruptionBudget/index-0")["selector"]}
        ),
        "PodDisruptionBudget/index-0",
        "spec.minAvailable",
    ),
    Damage(lints.budgets_leave_room, lambda s: s.drop("PodDisruptionBudget/ranker"), RANKER, "metadata.labels"),
    Damage(
        lints.autoscalers_are_where_they_may,
        lambda s: s.spec("HorizontalPodAutoscaler/ranker")["scaleTargetRef"].update(name="ranker-canary"),
        "HorizontalPodAutoscaler/ranker",
        "spec.scaleTargetRef",
    ),
    Damage(
        lints.autoscalers_are_where_they_may,
        lambda s: s.spec("HorizontalPodAutoscaler/ranker")["scaleTargetRef"].update(kind="StatefulSet", name="index-0"),
        "HorizontalPodAutoscaler/ranker",
        "spec.scaleTargetRef",
    ),
    Damage(lints.autoscalers_are_where_they_may, lambda s: s.spec(RANKER).update(replicas=3), RANKER, "spec.replicas"),
    Damage(
        lints.connections_grow_old,
        lambda s: s.unset(RANKER, "HEADRACE_RANKER_MAX_CONNECTION_AGE_S"),
        RANKER,
        "env.HEADRACE_RANKER_MAX_CONNECTION_AGE_S",
    ),
    Damage(
        lints.drain_fits_the_grace_period,
        lambda s: s.set(RANKER, "HEADRACE_RANKER_DRAIN_S", "15"),
        RANKER,
        "spec.template.spec.terminationGracePeriodSeconds",
    ),
    Damage(
        lints.drain_fits_the_grace_period,
        lambda s: s.container(RANKER).pop("lifecycle"),
        RANKER,
        f"{CONTAINER}.lifecycle.preStop",
    ),
    Damage(
        lints.stateful_sets_start_together,
        lambda s: s.spec(INDEX).pop("podManagementPolicy"),
        INDEX,
        "spec.podManagementPolicy",
    ),
    Damage(
        lints.stateful_sets_start_together,
        lambda s: s.spec(INDEX)["updateStrategy"].pop("rollingUpdate"),
        INDEX,
        "spec.updateStrategy.rollingUpdate.partition",
    ),
    Damage(
        lints.namespaces_are_restricted,
        lambda s: s.one("Namespace/headrace")["metadata"]["labels"].update(
            {"pod-security.kubernetes.io/enforce": "baseline"}
        ),
        "Namespace/headrace",
        "metadata.labels.pod-security.kubernetes.io/enforce",
    ),
    *(
        Damage(
            lints.pods_are_restricted,
            lambda s, key=key: s.pod(RANKER)["securityContext"].pop(key),  # type: ignore[misc]
            RANKER,
            f"spec.template.spec.securityContext.{key}",
        )
        for key in ("runAsNonRoot", "runAsUser", "seccompProfile")
    ),
    *(
        Damage(
            lints.pods_are_restricted,
            lambda s, key=key: s.container(RANKER)["securityContext"].pop(key),  # type: ignore[misc]
            RANKER,
            f"{CONTAINER}.securityContext.{key}",
        )
        for key in ("allowPrivilegeEscalation", "privileged", "runAsNonRoot", "capabilities")
    ),
    Damage(
        lints.pods_are_restricted,
        lambda s: s.pod(RANKER)["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
        RANKER,
        "volumes[node]",
    ),
    Damage(
        lints.pods_are_restricted,
        lambda s: s.pod(RANKER).update(hostNetwork=True),
        RANKER,
        "spec.template.spec.hostNetwork",
    ),
    Damage(
        lints.pods_are_restricted,
        lambda s: s.container(RANKER)["ports"][0].update(hostPort=7405),
        RANKER,
        f"{CONTAINER}.ports[grpc].hostPort",
    ),
    Damage(
        lints.pods_keep_to_themselves,
        lambda s: s.pod(RANKER).update(enableServiceLinks=True),
        RANKER,
        "spec.template.spec.enableServiceLinks",
    ),
    Damage(
        lints.pods_keep_to_themselves,
        lambda s: s.pod(RANKER).update(automountServiceAccountToken=True),
        RANKER,
        "spec.template.spec.automountServiceAccountToken",
    ),
    Damage(
        lints.pods_keep_to_themselves,
        lambda s: s.container(RANKER)["securityContext"].update(readOnlyRootFilesystem=False),
        RANKER,
        f"{CONTAINER}.securityContext.readOnlyRootFilesystem",
    ),
    Damage(
        lints.pods_keep_to_themselves,
        lambda s: s.container(RANKER).update(volumeMounts=[]),
        RANKER,
        f"{CONTAINER}.volumeMounts",
    ),
    Damage(
        lints.variables_are_read,
        lambda s: s.set(RANKER, "HEADRACE_RANKER_COLOUR", "1"),
        RANKER,
        "env.HEADRACE_RANKER_COLOUR",
    ),
    Damage(
        lints.variables_are_read,
        lambda s: s.set(RANKER, "HEADRACE_INGEST_PORT", "1"),
        RANKER,
        "env.HEADRACE_INGEST_PORT",
    ),
    Damage(lints.variables_are_read, lambda s: s.set(RANKER, "HEADRACE_RANKER_MAX_WAITING", "-1"), RANKER, "env"),
    Damage(
        lints.variables_are_complete,
        lambda s: s.unset(RANKER, "HEADRACE_RANKER_TRAINER_ADDRESS"),
        RANKER,
        "env.HEADRACE_RANKER_TRAINER_ADDRESS",
    ),
    Damage(
        lints.variables_are_complete, lambda s: s.unset(DOOR, "HEADRACE_PRIVACY_KEY"), DOOR, "env.HEADRACE_PRIVACY_KEY"
    ),
    Damage(lints.all_or_none_speak_tls, lambda s: s.unset(DOOR, "HEADRACE_TLS_CA"), DOOR, "env.HEADRACE_TLS_CA"),
    Damage(
        lints.addresses_lead_somewhere,
        lambda s: s.set(RANKER, "HEADRACE_RANKER_TRAINER_ADDRESS", "trainer:7403"),
        RANKER,
        "env.HEADRACE_RANKER_TRAINER_ADDRESS",
    ),
    Damage(
        lints.addresses_lead_somewhere,
        lambda s: s.set(RANKER, "HEADRACE_RANKER_TRAINER_ADDRESS", "trainer-registry:7404"),
        RANKER,
        "env.HEADRACE_RANKER_TRAINER_ADDRESS",
    ),
    Damage(
        lints.addresses_lead_somewhere,
        lambda s: s.spec(INDEX).update(replicas=1),
        RANKER,
        "env.HEADRACE_RANKER_INDEX_ADDRESS",
    ),
    Damage(
        lints.addresses_name_every_replica,
        lambda s: s.spec(INDEX).update(replicas=3),
        RANKER,
        "env.HEADRACE_RANKER_INDEX_ADDRESS",
    ),
    Damage(
        lints.addresses_name_every_replica,
        lambda s: s.set(INDEX, "HEADRACE_INDEX_SHARD", "1/2"),
        INDEX,
        "env.HEADRACE_INDEX_SHARD",
    ),
    Damage(
        lints.addresses_name_every_replica,
        lambda s: s.set(INDEX, "HEADRACE_INDEX_PEERS", "index-0-0.index-0:7404"),
        INDEX,
        "env.HEADRACE_INDEX_PEERS",
    ),
    Damage(
        lints.addresses_equal_the_call_graph,
        lambda s: s.set(DOOR, "HEADRACE_INGEST_RANKER_ADDRESS", "ranker:7405"),
        "ingest",
        "env",
    ),
    Damage(
        lints.addresses_equal_the_call_graph,
        lambda s: [s.unset(label, "HEADRACE_RANKER_TRAINER_ADDRESS") for label in (RANKER, f"{RANKER}-canary")],
        "ranker",
        "env",
    ),
    Damage(
        lints.policies_equal_the_call_graph, lambda s: s.drop("NetworkPolicy/ranker-stable"), "NetworkPolicy", "spec"
    ),
    Damage(
        lints.policies_equal_the_call_graph,
        lambda s: s.drop("NetworkPolicy/default-deny"),
        "NetworkPolicy",
        "spec.podSelector",
    ),
    Damage(
        lints.policies_equal_the_call_graph,
        lambda s: _rule("index")(s)["ingress"][0].pop("from"),
        "NetworkPolicy",
        "spec",
    ),
    Damage(lints.policies_equal_the_call_graph, lambda s: _rule("trainer")(s)["egress"].pop(), "NetworkPolicy", "spec"),
    Damage(
        lints.policies_equal_the_call_graph,
        lambda s: _rule("ranker-canary")(s)["ingress"][0]["from"].append({"namespaceSelector": {}}),
        "NetworkPolicy",
        "spec",
    ),
    Damage(
        lints.images_are_by_digest,
        lambda s: s.container(RANKER).update(image="registry.example.com/headrace/ranker:latest"),
        RANKER,
        f"{CONTAINER}.image",
    ),
    Damage(
        lints.images_are_of_the_service,
        lambda s: s.container(RANKER).update(image=s.container(DOOR)["image"]),
        RANKER,
        f"{CONTAINER}.image",
    ),
    Damage(
        lints.references_resolve,
        lambda s: s.drop("ServiceAccount/ranker"),
        RANKER,
        "spec.template.spec.serviceAccountName",
    ),
    Damage(
        lints.references_resolve,
        lambda s: s.drop("PersistentVolumeClaim/artifacts"),
        "Deployment/trainer-registry",
        "volumes[artifacts]",
    ),
    Damage(
        lints.references_resolve,
        lambda s: s.container(RANKER)["envFrom"][0]["configMapRef"].update(name="headrace"),
        RANKER,
        f"{CONTAINER}.envFrom",
    ),
    Damage(
        lints.references_resolve,
        lambda s: s.container(RANKER)["env"].append(
            {"name": "X", "valueFrom": {"secretKeyRef": {"name": "headrace-privacy", "key": "salt"}}}
        ),
        RANKER,
        "env.X",
    ),
    Damage(
        lints.references_resolve,
        lambda s: s.pod(RANKER)["volumes"].append({"name": "tls-too", "secret": {"secretName": "ranker-tls"}}),
        RANKER,
        "volumes[tls-too]",
    ),
    Damage(
        lints.references_resolve,
        lambda s: s.container(RANKER)["volumeMounts"].append({"name": "cache", "mountPath": "/cache"}),
        RANKER,
        "volumeMounts[/cache]",
    ),
    Damage(
        lints.references_resolve,
        lambda s: s.set(RANKER, "HEADRACE_TLS_CERT", "/etc/tls/tls.crt"),
        RANKER,
        "env.HEADRACE_TLS_CERT",
    ),
    Damage(
        lints.references_resolve,
        lambda s: s.drop("Role/trainer-registry"),
        "RoleBinding/trainer-registry",
        "roleRef.name",
    ),
    Damage(lints.references_resolve, lambda s: s.drop("Service/index-0"), INDEX, "spec.serviceName"),
    Damage(
        lints.roles_are_least,
        lambda s: s.one("Role/trainer-registry")["rules"].append(
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
        ),
        "Role/trainer-registry",
        "rules[4].verbs",
    ),
    Damage(
        lints.roles_are_least,
        lambda s: s.one("Role/trainer-registry")["rules"][3].pop("resourceNames"),
        "Role/trainer-registry",
        "rules[3].resourceNames",
    ),
    Damage(
        lints.roles_are_least,
        lambda s: s.one("Role/trainer-registry").update(kind="ClusterRole"),
        "ClusterRole/trainer-registry",
        "kind",
    ),
    Damage(
        lints.config_maps_hold_settings,
        lambda s: next(m for m in s.manifests if label_of(m).startswith("ConfigMap/headrace-settings"))["data"].update(
            HEADRACE_COLOUR="1"
        ),
        "ConfigMap/headrace-settings",
        "data.HEADRACE_COLOUR",
    ),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: f"{damage.lint.__name__}-{damage.field}")
def test_a_fault_that_is_put_there_is_found_and_named(everything: list[Manifest], damage: Damage) -> None:
    shop = Shop(everything)
    damage.do(shop)
    found = damage.lint(shop.manifests)
    assert any(fault.manifest.startswith(damage.manifest) and fault.field == damage.field for fault in found), found


def test_every_lint_has_a_fault_that_it_finds() -> None:
    assert {damage.lint for damage in DAMAGES} == {*EVERYWHERE, *IN_PRODUCTION}


def test_what_we_ship_has_no_fault(everything: list[Manifest], dev: list[Manifest]) -> None:
    assert faults_of(everything, EVERYWHERE + IN_PRODUCTION) == []
    assert faults_of(dev, EVERYWHERE) == []


def test_an_overlay_with_the_digests_of_this_repository_is_not_to_be_applied(everything: list[Manifest]) -> None:
    shop = Shop(everything)
    assert len(faults_of(shop.manifests, (lints.digests_are_set,))) > 5
    for manifest in shop.manifests:
        if "template" in manifest.get("spec", {}):
            container = manifest["spec"]["template"]["spec"]["containers"][0]
            container["image"] = container["image"].replace("0" * 64, "ab" * 32)
    assert faults_of(shop.manifests, (lints.digests_are_set, lints.images_are_by_digest)) == []
