"""Is it certain which image runs?"""

from __future__ import annotations

import re

from deploy.check.manifests import Fault, Manifests, workloads

_DIGEST = re.compile(r"^[^@\s]+@sha256:[0-9a-f]{64}$")
NO_DIGEST = "sha256:" + "0" * 64


def images_are_by_digest(manifests: Manifests) -> list[Fault]:
    """Every image is named by a digest: a tag may be another image tomorrow."""
    return [
        Fault(owner.label, f"containers[{container['name']}].image", f"must end in @sha256:…, got {container['image']}")
        for owner in workloads(manifests)
        for container in owner.containers
        if not _DIGEST.match(container["image"])
    ]


def digests_are_set(manifests: Manifests) -> list[Fault]:
    """No image has the digest of zeros that the overlays hold in place of yours."""
    return [
        Fault(
            owner.label,
            f"containers[{container['name']}].image",
            f"set the digest of your image, got {container['image']}",
        )
        for owner in workloads(manifests)
        for container in owner.containers
        if container["image"].endswith(NO_DIGEST)
    ]


def images_are_of_the_service(manifests: Manifests) -> list[Fault]:
    """Each process runs the image of its service."""
    faults = []
    for owner in workloads(manifests):
        name = owner.main["image"].partition("@")[0].rpartition("/")[2].partition(":")[0]
        if owner.service and name not in (owner.service, f"{owner.service}-gpu"):
            field = f"containers[{owner.main['name']}].image"
            faults.append(Fault(owner.label, field, f"is of {name}, this is {owner.service}"))
    return faults
