"""A certificate authority of a test, and what it signs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headrace.runtime.tls import TlsFiles


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM."""

    cert: bytes
    key: bytes


class Authority:
    """Signs certificates for 127.0.0.1; those of another authority are foreign."""

    def __init__(self, name: str = "suite") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        is_authority = x509.BasicConstraints(ca=True, path_length=None)
        built = _builder(self._name, self._name, self._key, 1).add_extension(is_authority, critical=True)
        self.pem = _pem(built.sign(self._key, hashes.SHA256()))

    def pair(self, service: str, *, days: float = 1, uris: tuple[str, ...] | None = None) -> Pair:
        """A certificate of `service`; `days` below 0: it has expired."""
        names = [x509.UniformResourceIdentifier(uri) for uri in _uris(service, uris)]
        local = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        key = ec.generate_private_key(ec.SECP256R1())
        built = _builder(_name(service), self._name, key, days)
        cert = built.add_extension(x509.SubjectAlternativeName([*names, *local]), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(_pem(cert.sign(self._key, hashes.SHA256())), private)

    def write(self, folder: Path, pair: Pair) -> TlsFiles:
        """The files of a process, replaced one after the other where there are some."""
        folder.mkdir(exist_ok=True)
        files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
        for path, data in ((files.ca, self.pem), (files.cert, pair.cert), (files.key, pair.key)):
            temporary = path.with_suffix(".new")
            temporary.write_bytes(data)
            temporary.rename(path)
        return files


def _uris(service: str, uris: tuple[str, ...] | None) -> tuple[str, ...]:
    return (f"spiffe://headrace/{service}",) if uris is None else uris


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
    )


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)
