"""What people may deploy: every overlay, with choices of components by which each two of them meet."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.check.images import NO_DIGEST
from deploy.check.manifests import Manifest, rendered

KUBERNETES = Path(__file__).parents[1] / "kubernetes"
# images that no overlay knows: whoever runs them names their digests
_IMAGES_OF_COMPONENTS = ("otel/opentelemetry-collector-contrib",)


@dataclass(frozen=True, slots=True)
class Combination:
    """An overlay and the components over it, in the order in which they are applied."""

    overlay: str
    components: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " + ".join((self.overlay, *self.components))

    @property
    def is_production(self) -> bool:
        return self.overlay != "dev"


def overlays() -> list[str]:
    return sorted(path.parent.name for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))


def components() -> list[str]:
    return sorted(path.parent.name for path in (KUBERNETES / "components").glob("*/kustomization.yaml"))


def combinations() -> Iterator[Combination]:
    """Each overlay alone, with each component, and with all, in both orders; production with each two of them."""
    for overlay in overlays():
        yield Combination(overlay)
        for component in components():
            yield Combination(overlay, (component,))
        yield Combination(overlay, tuple(components()))
        yield Combination(overlay, tuple(reversed(components())))
    for two in itertools.combinations(components(), 2):
        yield Combination("production", two)


def render(combination: Combination) -> list[Manifest]:
    """The manifests of a combination, as an overlay of one's own would have them. RenderError."""
    with tempfile.TemporaryDirectory(dir=KUBERNETES, prefix=".") as folder:
        (Path(folder) / "kustomization.yaml").write_text(_kustomization(combination))
        return rendered(Path(folder))


def _kustomization(combination: Combination) -> str:
    lines = ["resources:", f"  - ../overlays/{combination.overlay}"]
    if combination.components:
        lines += ["components:", *(f"  - ../components/{name}" for name in combination.components)]
    if combination.is_production:
        lines += ["images:", *(f"  - {{name: {name}, digest: '{NO_DIGEST}'}}" for name in _IMAGES_OF_COMPONENTS)]
    return os.linesep.join(lines) + os.linesep
