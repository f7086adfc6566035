"""Gate 0 of a rollout: what a release must pass before anyone is answered by it.

Signature, form, feature schema, checksums, golden requests, nothing but finite weights and scores on the shop's own
items, the vectors that the towers belong to, and the time of a warm batch beside the release that serves.
"""

# C candidates, F features, D width

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA, candidate_features
from headrace.model.history import History
from headrace.model.serving_model import PARTS, ModelError, ServingModel
from headrace.model.text.encoder import FindEncoder, TextEncoder
from headrace.ranker.catalogue import Catalogue
from headrace.ranker.plan import ReleaseManifest
from headrace.ranker.vectors import Vectors
from headrace.runtime.atomic import check_sha256
from headrace.runtime.errors import CorruptDataError, HeadraceError
from headrace.runtime.release_signing import ReleaseVerifier, Statement, UntrustedError

CheckSignature = Callable[[ReleaseManifest], None]

_WARM_ROWS = 500
_WARM_ROUNDS = 5


def unsigned(manifest: ReleaseManifest) -> None:
    """For a suite without a key: nobody signs, nobody checks."""


class RefusedError(HeadraceError):
    """A release does not pass; it is not tried again."""


def signature_check(verifier: ReleaseVerifier | None) -> CheckSignature:
    """Trusts what the verifier trusts; everything where there is none."""
    if verifier is None:
        return unsigned

    def check(manifest: ReleaseManifest) -> None:
        said = Statement(
            release=manifest.release,
            space=manifest.space,
            delta_sequence=manifest.delta_sequence,
            feature_schema=manifest.feature_schema,
            dimension=manifest.dimension,
            parts=dict(manifest.checksums),
            checksum=manifest.checksum,
        )
        try:
            verifier.check(said, manifest.signature)
        except UntrustedError as error:
            raise RefusedError(str(error)) from error

    return check


@dataclass(frozen=True, slots=True)
class GateZero:
    """`most_times_slower`: how many times as long as the served one's a warm batch may take.

    `check_signature` raises RefusedError for a manifest that nobody trusted has signed.
    """

    most_times_slower: float
    check_signature: CheckSignature

    def check_manifest(self, manifest: ReleaseManifest) -> None:
        """RefusedError: unsigned though it must be, of another schema, or lacking a part."""
        self.check_signature(manifest)
        if manifest.feature_schema != FEATURE_SCHEMA:
            raise RefusedError(
                f"feature schema is {manifest.feature_schema!r}, this ranker computes {FEATURE_SCHEMA!r}"
            )
        missing = sorted(set(PARTS) - {name for name, _ in manifest.checksums})
        if missing:
            raise RefusedError(f"the release lacks {', '.join(missing)}")

    @staticmethod
    def check_part(data: bytes, sha256: str, name: str) -> None:
        try:
            check_sha256(data, sha256, name)
        except CorruptDataError as error:
            raise RefusedError(str(error)) from error

    @staticmethod
    def model(
        manifest: ReleaseManifest, parts: dict[str, bytes], find_encoder: FindEncoder, fitted: TextEncoder | None
    ) -> ServingModel:
        """The model, which is what the manifest says it is. RefusedError."""
        try:
            model = ServingModel.load(parts, find_encoder, fitted)
        except ModelError as error:
            raise RefusedError(str(error)) from error
        for name, own, said in (
            ("space", model.space, manifest.space),
            ("feature schema", model.feature_schema, manifest.feature_schema),
            ("dimension", model.dimension, manifest.dimension),
        ):
            if own != said:
                raise RefusedError(f"{name} is {own!r} in the parts and {said!r} in the manifest")
        return model

    @staticmethod
    def golden(model: ServingModel) -> Iterator[None]:
        """In pieces. RefusedError: the model answers otherwise than the trainer's did."""
        try:
            yield from model.golden_checks()
        except ModelError as error:
            raise RefusedError(str(error)) from error

    def warm(
        self, model: ServingModel, vectors: Vectors, catalogue: Catalogue, served: ServingModel | None
    ) -> Iterator[None]:
        """Runs the model on the shop's own items, in pieces. RefusedError: not finite, another width, too slow."""
        if vectors.dimension and vectors.dimension != model.dimension:
            raise RefusedError(f"dimension is {model.dimension}, the index's vectors have {vectors.dimension}")
        features_CF = _shop_features(catalogue)
        yield
        user_D = model.user_vector(
            History.empty(), np.zeros((0, model.dimension), np.float32), catalogue.shop_time_us()
        )
        if not (np.isfinite(model.scores(features_CF)).all() and np.isfinite(user_D).all()):
            raise RefusedError("scores of the shop's own items are not finite")
        if served is not None:
            yield from self._speed(model, served, features_CF)

    def _speed(self, model: ServingModel, served: ServingModel, features_CF: NDArray[np.float32]) -> Iterator[None]:
        own_ms = served_ms = float("inf")
        for _ in range(_WARM_ROUNDS):
            # the best of several, one beside the other and by the thread's own time: the machine does other things too
            yield
            own_ms, served_ms = (
                min(own_ms, _batch_ms(model, features_CF)),
                min(served_ms, _batch_ms(served, features_CF)),
            )
        if own_ms > self.most_times_slower * served_ms:
            raise RefusedError(
                f"a warm batch of {len(features_CF)} takes {own_ms:.2f} ms, more than {self.most_times_slower:g} times"
                f" the served release's {served_ms:.2f}"
            )


def _shop_features(catalogue: Catalogue) -> NDArray[np.float32]:
    items = catalogue.items.view()
    if not items.count:
        return np.zeros((_WARM_ROWS, len(CANDIDATE_FEATURES)), np.float32)
    # a small shop's items stand several times: batches of a few are too short to be timed
    candidates = np.resize(np.arange(min(items.count, _WARM_ROWS), dtype=np.uint32), _WARM_ROWS)
    return candidate_features(History.empty(), items, candidates, catalogue.shop_time_us())


def _batch_ms(model: ServingModel, features_CF: NDArray[np.float32]) -> float:
    begun = time.thread_time()
    model.scores(features_CF)
    return (time.thread_time() - begun) * 1e3
