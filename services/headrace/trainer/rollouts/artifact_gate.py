"""Gate 0 as far as the registry can see: a release's files are all there, as signed, and a model that answers right."""

from __future__ import annotations

import asyncio

from headrace.model.serving_model import ModelError, ServingModel
from headrace.model.text.encoder import FindEncoder
from headrace.runtime.errors import CorruptDataError, NotFoundError
from headrace.runtime.release_signing import UntrustedError
from headrace.trainer.registry import Release
from headrace.trainer.releases import Releases


class ArtifactGate:
    """Reads and tries a release in a thread."""

    def __init__(self, releases: Releases, find_encoder: FindEncoder) -> None:
        self._releases = releases
        self._find_encoder = find_encoder

    async def fault(self, release: Release) -> str:
        """What is wrong with it; empty when it is sound. UnavailableError: its files cannot be reached."""
        return await asyncio.to_thread(self._fault, release)

    def _fault(self, release: Release) -> str:
        try:
            parts = self._releases.parts(release)
            model = ServingModel.load(parts, self._find_encoder)
            model.check_golden()
        except (NotFoundError, CorruptDataError, ModelError, UntrustedError) as error:
            return str(error)
        for name, own, said in (
            ("space", model.space, release.space),
            ("feature schema", model.feature_schema, release.feature_schema),
            ("dimension", model.dimension, release.dimension),
        ):
            if own != said:
                return f"{name} is {own!r} in the parts and {said!r} in the manifest"
        return ""
