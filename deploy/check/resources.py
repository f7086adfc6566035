"""Is what a pod asks for what it may use, and can be had?"""

from __future__ import annotations

import re
from decimal import Decimal

from deploy.check.manifests import Fault, Manifests, workloads

GPU = "nvidia.com/gpu"
_UNITS = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}
_QUANTITY = re.compile(rf"^(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>{'|'.join(_UNITS)})$")


def quantity(text: str | int | float) -> Decimal:
    """A Kubernetes quantity as a number. ValueError.

    >>> quantity("500m"), quantity("2Ki")
    (Decimal('0.500'), Decimal('2048'))
    """
    found = _QUANTITY.match(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(found["number"]) * _UNITS[found["unit"]]


def requests_are_within_limits(manifests: Manifests) -> list[Fault]:
    """Every container asks for CPU and memory, has a limit on memory, and asks for no more than its limits."""
    faults = []
    for owner in workloads(manifests):
        for container in owner.containers:
            field = f"containers[{container['name']}].resources"
            requests = container.get("resources", {}).get("requests", {})
            limits = container.get("resources", {}).get("limits", {})
            missing = [f"requests.{name}" for name in ("cpu", "memory") if name not in requests]
            missing += ["limits.memory"] if "memory" not in limits else []
            faults += [Fault(owner.label, f"{field}.{name}", "is missing") for name in missing]
            faults += [
                Fault(owner.label, f"{field}.requests.{name}", f"{asked} is more than its limit {limits[name]}")
                for name, asked in requests.items()
                if name in limits and quantity(asked) > quantity(limits[name])
            ]
    return faults


def gpus_are_for_who_asks(manifests: Manifests) -> list[Fault]:
    """A pod goes to a GPU's node when, and only when, it asks for a GPU; its settings and image say the same."""
    faults = []
    for owner in workloads(manifests):
        asks = any(GPU in container.get("resources", {}).get("limits", {}) for container in owner.containers)
        selects = any(key.startswith("nvidia.com/") for key in owner.pod.get("nodeSelector", {}))
        tolerates = any(one.get("key") == GPU for one in owner.pod.get("tolerations", []))
        told = any(
            entry["name"] == "HEADRACE_INDEX_DEVICE" and entry.get("value") == "gpu"
            for entry in owner.main.get("env", [])
        )
        has_image = "index-gpu" in owner.main["image"]
        signs = {
            "nodeSelector": selects,
            "tolerations": tolerates,
            f"containers[{owner.main['name']}].env.HEADRACE_INDEX_DEVICE": told,
            f"containers[{owner.main['name']}].image": has_image,
        }
        faults += [
            Fault(owner.label, field, f"{'does not fit' if asks else 'fits only'} a pod that asks for {GPU}")
            for field, is_so in signs.items()
            if is_so != asks
        ]
    return faults
