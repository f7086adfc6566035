"""Releases are taken only as a trusted learner signed them, where the suite has a key."""

from __future__ import annotations

from headrace.ranker.gate_zero import CheckSignature, RefusedError, unsigned
from headrace.ranker.plan import ReleaseManifest
from headrace.runtime.release_signing import ReleaseVerifier, Statement, UntrustedError


def signature_check(verifier: ReleaseVerifier | None) -> CheckSignature:
    """RefusedError for a manifest that is not what was signed; without a key nothing is asked for."""
    if verifier is None:
        return unsigned

    def check(manifest: ReleaseManifest) -> None:
        try:
            verifier.check(_statement(manifest), manifest.signature)
        except UntrustedError as error:
            raise RefusedError(str(error)) from error

    return check


def _statement(manifest: ReleaseManifest) -> Statement:
    return Statement(
        release=manifest.release,
        space=manifest.space,
        delta_sequence=manifest.delta_sequence,
        feature_schema=manifest.feature_schema,
        dimension=manifest.dimension,
        parts=dict(manifest.checksums),
        checksum=manifest.checksum,
    )
