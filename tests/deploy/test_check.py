"""What the check asks beside the lints: schemas, and how it reads selectors and quantities."""

from __future__ import annotations

import copy

import pytest

from deploy.check.combinations import combinations, components, overlays
from deploy.check.manifests import Manifest, does_match, label_of, workloads
from deploy.check.resources import quantity
from deploy.check.schemas import schema_faults, versions
from headrace.ranker.settings import RankerSettings


def test_an_unknown_field_is_a_fault_in_every_version(dev: list[Manifest]) -> None:
    ranker = copy.deepcopy(next(manifest for manifest in dev if label_of(manifest) == "Deployment/ranker"))
    newest = versions()[-1]
    assert schema_faults(ranker, newest) == []
    ranker["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert any("livenesProbe" in fault.message for fault in schema_faults(ranker, newest))


def test_a_kind_that_a_version_does_not_have_is_a_fault() -> None:
    old = {"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}}
    assert schema_faults(old, versions()[-1])[0].field == "apiVersion"


def test_every_component_meets_every_other_and_every_overlay() -> None:
    chosen = set(combinations())
    for overlay in overlays():
        assert any(one.overlay == overlay and set(one.components) == set(components()) for one in chosen)
        for component in components():
            assert any(one.overlay == overlay and one.components == (component,) for one in chosen)


def test_a_ranker_gets_longer_to_start_than_it_waits_for_its_peers(everything: list[Manifest]) -> None:
    rankers = [owner for owner in workloads(everything) if owner.service == "ranker"]
    assert {owner.name for owner in rankers} == {"ranker", "ranker-canary"}
    for ranker in rankers:
        probe = ranker.main["startupProbe"]
        given = {entry["name"]: entry.get("value") for entry in ranker.main["env"]}
        waits_s = float(given.get("HEADRACE_RANKER_READY_WAIT_S") or RankerSettings().ready_wait_s)
        assert 2 * waits_s < probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("1", 1), ("1.5", 1.5), ("2Gi", 2 * 2**30), ("3M", 3_000_000), (2, 2)]
)
def test_quantities(text: str | int, number: float) -> None:
    assert float(quantity(text)) == number


def test_what_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity("2GiB")


@pytest.mark.parametrize(
    ("selector", "takes"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "3"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_selectors_take_what_kubernetes_would(selector: dict[str, object] | None, takes: bool) -> None:
    assert does_match(selector, {"a": "1"}) is takes
