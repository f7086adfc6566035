"""From the learner's signature through SQL and the plan's message to gate 0 of a ranker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from headrace.model.serving_model import PARTS
from headrace.ranker.gate_zero import GateZero, RefusedError, signature_check
from headrace.ranker.peers import _manifest
from headrace.ranker.plan import ReleaseManifest
from headrace.runtime.artifacts import ArtifactStore
from headrace.runtime.release_signing import ReleaseSigner, ReleaseVerifier, UntrustedError, new_pair
from headrace.trainer.messages import release_message
from headrace.trainer.registry import Registry, open_registry, registry_url
from headrace.trainer.releases import Releases, Watermark

WATERMARK = Watermark("main", "main-1", 3, 9)
# what is signed is their checksums; nobody loads them here
DATA = {name: b'{"towers":{"dimension":8}}' if name == "config.json" else name.encode() for name in PARTS}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(registry_url("", tmp_path))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[ReleaseSigner, ReleaseVerifier]:
    private, public = new_pair()
    (tmp_path / "signing.pem").write_bytes(private)
    (tmp_path / "verify.pem").write_bytes(public)
    return ReleaseSigner(tmp_path / "signing.pem"), ReleaseVerifier(tmp_path / "verify.pem")


def published(tmp_path: Path, registry: Registry, signer: ReleaseSigner | None, verifier: ReleaseVerifier) -> Releases:
    releases = Releases(ArtifactStore(str(tmp_path / "artifacts")), registry, 2, signer=signer, verifier=verifier)
    releases.publish(DATA, WATERMARK, {"loss": 1.0})
    return releases


def as_rankers_see_it(registry: Registry) -> ReleaseManifest:
    manifest = _manifest(release_message(registry.release("r-000001")))
    assert manifest is not None
    return manifest


def test_a_signed_release_passes(
    tmp_path: Path, registry: Registry, keys: tuple[ReleaseSigner, ReleaseVerifier]
) -> None:
    releases = published(tmp_path, registry, *keys)
    GateZero(2.0, signature_check(keys[1])).check_manifest(as_rankers_see_it(registry))
    assert releases.parts(registry.release("r-000001")) == DATA


def test_whoever_changes_the_registry_or_the_message_is_found_out(
    tmp_path: Path, registry: Registry, keys: tuple[ReleaseSigner, ReleaseVerifier]
) -> None:
    published(tmp_path, registry, *keys)
    gate, manifest = GateZero(2.0, signature_check(keys[1])), as_rankers_see_it(registry)
    poisoned = tuple((name, "0" * 64 if name == "towers.safetensors" else sha) for name, sha in manifest.checksums)
    for changed in (
        replace(manifest, checksums=poisoned),
        replace(manifest, space="main-2"),
        replace(manifest, release="r-000002"),
    ):
        with pytest.raises(RefusedError, match="not what a trusted key signed"):
            gate.check_manifest(changed)


def test_an_unsigned_release_is_refused_where_a_key_is_trusted_and_taken_where_none_is(
    tmp_path: Path, registry: Registry, keys: tuple[ReleaseSigner, ReleaseVerifier]
) -> None:
    releases = published(tmp_path, registry, None, keys[1])
    manifest = as_rankers_see_it(registry)
    with pytest.raises(RefusedError, match="r-000001 is not signed"):
        GateZero(2.0, signature_check(keys[1])).check_manifest(manifest)
    with pytest.raises(UntrustedError, match="r-000001 is not signed"):
        releases.parts(registry.release("r-000001"))
    GateZero(2.0, signature_check(None)).check_manifest(manifest)
