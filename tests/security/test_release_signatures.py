from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headrace.runtime.errors import SettingsError
from headrace.runtime.release_signing import ReleaseSigner, ReleaseVerifier, Statement, UntrustedError, new_pair

SAID = Statement("r-000042", "s-1", 7, "f-1", 64, {"towers.safetensors": "ab", "config.json": "cd"}, "ef")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = new_pair()
    paths = tmp_path / "signing.pem", tmp_path / "verify.pem"
    paths[0].write_bytes(private)
    paths[1].write_bytes(public)
    return paths


def test_what_was_signed_is_trusted(keys: tuple[Path, Path]) -> None:
    signature = ReleaseSigner(keys[0]).signature(SAID)
    ReleaseVerifier(keys[1]).check(SAID, signature)
    # the order in which parts are listed says nothing
    ReleaseVerifier(keys[1]).check(replace(SAID, parts=dict(reversed(SAID.parts.items()))), signature)


@pytest.mark.parametrize(
    "changed",
    [
        {"release": "r-000043"},
        {"space": "s-2"},
        {"delta_sequence": 8},
        {"feature_schema": "f-2"},
        {"dimension": 65},
        {"parts": {"towers.safetensors": "00", "config.json": "cd"}},
        {"parts": {"towers.safetensors": "ab"}},
        {"checksum": "00"},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_whatever_is_changed_is_not_what_was_signed(keys: tuple[Path, Path], changed: dict[str, object]) -> None:
    signature = ReleaseSigner(keys[0]).signature(SAID)
    with pytest.raises(UntrustedError, match="is not what a trusted key signed"):
        ReleaseVerifier(keys[1]).check(replace(SAID, **changed), signature)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("signature", "told"), [("", "is not signed"), ("zz", "hexadecimal"), ("00" * 64, "not what a trusted key signed")]
)
def test_no_signature_and_nonsense_are_not_trusted(keys: tuple[Path, Path], signature: str, told: str) -> None:
    with pytest.raises(UntrustedError, match=told):
        ReleaseVerifier(keys[1]).check(SAID, signature)


def test_keys_change_without_a_gap(keys: tuple[Path, Path]) -> None:
    private, public = new_pair()
    before, verifier = ReleaseSigner(keys[0]).signature(SAID), ReleaseVerifier(keys[1])
    (keys[0]).write_bytes(private)
    after = ReleaseSigner(keys[0]).signature(SAID)
    keys[1].write_bytes(keys[1].read_bytes() + public)
    verifier.check(SAID, before)
    verifier.check(SAID, after)
    keys[1].write_bytes(public)
    verifier.check(SAID, after)
    with pytest.raises(UntrustedError):
        verifier.check(SAID, before)


def test_files_without_an_ed25519_key_are_refused_at_the_start(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(SettingsError, match="must be Ed25519, is EC"):
        ReleaseSigner(path)
    with pytest.raises(SettingsError, match="must hold Ed25519 public keys"):
        ReleaseVerifier(path)
    with pytest.raises(SettingsError, match=r"HEADRACE_RELEASE_VERIFY_KEY_FILE='.*absent.pem'"):
        ReleaseVerifier(tmp_path / "absent.pem")
