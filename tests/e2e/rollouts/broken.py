"""Releases as a broken learner would write them: to the artifact store and the registry, with golden answers of
their own where there can be any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from headrace.model.serving_model import ServingModel, parts_of
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.atomic import sha256
from headrace.trainer.registry import Part, Registry, Release, name_of
from headrace.trainer.releases import manifest_of

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Poison:
    """What is wrong with a release: weights changed in place, or what it says of itself.

    `gate`: the one that has to find it.
    """

    gate: int
    towers: Callable[[Weights], None] = lambda _: None
    ranker: Callable[[Weights], None] = lambda _: None
    space: str = ""
    feature_schema: str = ""
    # whether the manifest says the same as the parts
    is_consistent: bool = True
    has_golden: bool = True


def flip_towers(weights: Weights) -> None:
    """What people want is what they would least want."""
    for name in ("user.out.weight", "user.out.bias", "user.habit_gain.weight"):
        weights[name].neg_()


def flip_ranker(weights: Weights) -> None:
    """The best last, and clicks as likely as ever."""
    weights["heads.weight"][0].neg_()
    weights["heads.bias"][0].neg_()


def shuffle_ranker(weights: Weights) -> None:
    """Every weight there, none in its place."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in weights.items():
        if name.endswith("weight"):
            flat = tensor.flatten()
            tensor.copy_(flat[torch.randperm(len(flat), generator=generator)].view_as(tensor))


def poison_with_nan(weights: Weights) -> None:
    weights["heads.weight"][0, 0] = float("nan")


def published(registry: Registry, store: ArtifactStore, poison: Poison) -> str:
    """Makes the stable release anew with its poison; the name of what is registered."""
    stable = registry.plan().stable
    assert stable is not None
    sound = {part.name: store.read(f"releases/{stable.name}/{part.name}", part.sha256) for part in stable.parts}
    parts = _poisoned(sound, stable, poison)
    name = name_of(registry.reserve_number())
    written = tuple(Part(part, store.write(f"releases/{name}/{part}", data), len(data)) for part, data in parts.items())
    release = replace(stable, name=name, parent=stable.name, parts=written, checksum="")
    if poison.is_consistent:
        release = replace(
            release,
            space=poison.space or stable.space,
            feature_schema=poison.feature_schema or stable.feature_schema,
        )
    manifest = manifest_of(release)
    store.write(f"releases/{name}/manifest.json", manifest)
    registry.add(replace(release, checksum=sha256(manifest)))
    return name


def _poisoned(sound: Mapping[str, bytes], stable: Release, poison: Poison) -> dict[str, bytes]:
    weights = {name: load_tensors(sound[f"{name}.safetensors"]) for name in ("towers", "ranker")}
    poison.towers(weights["towers"])
    poison.ranker(weights["ranker"])
    parts = dict(sound) | {f"{name}.safetensors": save_tensors(tensors) for name, tensors in weights.items()}
    if not poison.has_golden:
        return parts
    model = ServingModel.load(parts)
    return parts_of(
        space=poison.space or stable.space,
        feature_schema=poison.feature_schema or stable.feature_schema,
        towers=model._towers,
        ranker=model._ranker,
        encoder=model.encoder,
    )
