"""Releases: written part by part, named by a manifest, registered last, and never changed.

A crash in between leaves files that no registry names; the next release of that number replaces them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

from headrace.model.candidates import FEATURE_SCHEMA
from headrace.model.serving_model import ServingModel, parts_of
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.atomic import sha256
from headrace.runtime.clock import now_us
from headrace.runtime.database import answering
from headrace.runtime.release_signing import ReleaseSigner, ReleaseVerifier, Statement
from headrace.trainer.learner import Learner
from headrace.trainer.own_releases import OwnReleases
from headrace.trainer.ranker_learner import RankerLearner
from headrace.trainer.registry import Part, Registry, Release, name_of


@dataclass(frozen=True, slots=True)
class Watermark:
    """What a release was learned from, and which vectors it belongs to."""

    lineage: str
    space: str
    delta_sequence: int
    log_offset: int


class Releases:
    """Writes releases to the artifact store and the registry, and reads their parts."""

    def __init__(
        self,
        store: ArtifactStore,
        registry: Registry,
        keep: int,
        own_releases: OwnReleases | None = None,
        signer: ReleaseSigner | None = None,
        verifier: ReleaseVerifier | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._keep = keep
        self._own_releases = own_releases
        self._signer = signer
        self._verifier = verifier

    def publish(self, parts: Mapping[str, bytes], watermark: Watermark, metrics: Mapping[str, float]) -> Release:
        """A new release, registered; its parts are durable before anybody hears of it.

        UnavailableError: the registry is away, and nobody hears of it.
        """
        with answering("registry"):
            parent, number = self._registry.newest_of(watermark.lineage), self._registry.reserve_number()
        name = name_of(number)
        if self._own_releases is not None:
            self._own_releases.add(name)
        written = tuple(
            Part(part, self._store.write(_path(name, part), data), len(data)) for part, data in parts.items()
        )
        release = Release(
            name=name,
            parent=parent.name if parent else "",
            lineage=watermark.lineage,
            space=watermark.space,
            dimension=_dimension(parts),
            delta_sequence=watermark.delta_sequence,
            log_offset=watermark.log_offset,
            feature_schema=FEATURE_SCHEMA,
            parts=written,
            metrics=dict(metrics),
            create_time_us=now_us(),
            checksum="",
        )
        manifest = manifest_of(release)
        self._store.write(_path(name, "manifest.json"), manifest)
        release = replace(release, checksum=sha256(manifest))
        if self._signer is not None:
            release = replace(release, signature=self._signer.signature(statement_of(release)))
        with answering("registry"):
            self._registry.add(release)
            forgotten = self._registry.forget_beyond(self._keep, release.lineage)
        for gone in forgotten:
            self._store.delete(f"releases/{gone}")
        return release

    def newest_of(self, lineage: str) -> Release | None:
        """The newest release of a lineage, whoever is served by it. UnavailableError: the registry is away."""
        with answering("registry"):
            return self._registry.newest_of(lineage)

    def forget_spaces(self, spaces: Collection[str]) -> set[str]:
        """Drops the releases that name one of `spaces`, but what is needed; the spaces that are named still."""
        with answering("registry"):
            forgotten, named = self._registry.forget_spaces(spaces), self._registry.spaces()
        for gone in forgotten:
            self._store.delete(f"releases/{gone}")
        return named

    def parts(self, release: Release) -> dict[str, bytes]:
        """The bytes of all parts by name. NotFoundError; CorruptDataError when they are not what was published;
        UntrustedError: the suite's releases are signed, and this one is not.
        """
        if self._verifier is not None:
            self._verifier.check(statement_of(release), release.signature)
        return {part.name: self.read(release, part.name) for part in release.parts}

    def read(self, release: Release, part: str) -> bytes:
        """The bytes of a part. NotFoundError; CorruptDataError when they are not what was published."""
        return self._store.read(_path(release.name, part), release.part(part).sha256)


def checked_parts(space: str, learner: Learner, ranker: RankerLearner) -> dict[str, bytes]:
    """The parts of a release as they would be served now. ModelError: not finite, or not the same once read."""
    parts = parts_of(
        space=space,
        feature_schema=FEATURE_SCHEMA,
        towers=learner.towers,
        ranker=ranker.averaged,
        encoder=learner.catalogue.encoder,
    )
    # the encoder that it names is the one at hand
    ServingModel.load(parts, lambda _: learner.catalogue.encoder).check_golden()
    return parts


def manifest_of(release: Release) -> bytes:
    """The manifest's bytes: everything but its own checksum, and the signature over that."""
    facts = asdict(release)
    del facts["checksum"], facts["signature"]
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def statement_of(release: Release) -> Statement:
    """What the learner signs of a release."""
    return Statement(
        release=release.name,
        space=release.space,
        delta_sequence=release.delta_sequence,
        feature_schema=release.feature_schema,
        dimension=release.dimension,
        parts={part.name: part.sha256 for part in release.parts},
        checksum=release.checksum,
    )


def _dimension(parts: Mapping[str, bytes]) -> int:
    return int(json.loads(parts["config.json"])["towers"]["dimension"])


def _path(release: str, part: str) -> str:
    return f"releases/{release}/{part}"
