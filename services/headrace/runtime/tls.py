"""Mutual TLS: a certificate, its key and the authority of the suite, from files that are read anew as they change."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from headrace.runtime.followed_files import FollowedFiles
from headrace.runtime.settings import CommonSettings, SettingsError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a process finds its certificate (with those in between), its key, and the authority that it trusts."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files said: PEM, and `number` to tell one reading from the next."""

    cert: bytes
    key: bytes
    ca: bytes
    number: int = 0

    def channel_credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.cert)], self.ca)


class Certificates:
    """The newest certificate whose key fits. SettingsError when there is none to begin with.

    Files that do not fit are taken for a change that is only half written: the last good ones stay in use.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._followed = FollowedFiles(files.cert, files.key, files.ca)
        try:
            self._pem = _read(files, 0)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"HEADRACE_TLS_CERT={str(files.cert)!r}, HEADRACE_TLS_KEY={str(files.key)!r},"
                f" HEADRACE_TLS_CA={str(files.ca)!r}: {error}"
            ) from error

    def newest(self) -> Pem:
        """The certificate as of now, or as of half a second ago."""
        if self._followed.changed():
            self._take()
        return self._pem

    def _take(self) -> None:
        try:
            self._pem = _read(self._files, self._pem.number + 1)
        except (OSError, ValueError) as error:
            log.warning("certificates_refused", extra={"cert": str(self._files.cert), "reason": str(error)})
            return
        log.info("certificates_renewed", extra={"cert": str(self._files.cert)})


def tls_files(common: CommonSettings) -> TlsFiles | None:
    """The files that the settings name; None where they name none."""
    if common.tls_cert is None or common.tls_key is None or common.tls_ca is None:
        return None
    return TlsFiles(common.tls_cert, common.tls_key, common.tls_ca)


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """For a server that asks every caller for a certificate; each new connection is met with the newest of ours."""
    # asked on gRPC's own thread, at every handshake
    return grpc.dynamic_ssl_server_credentials(
        certificates.newest().server_configuration(),
        lambda: certificates.newest().server_configuration(),
        require_client_authentication=True,
    )


def _read(files: TlsFiles, number: int) -> Pem:
    """OSError or ValueError: no certificate, no key, or one that is not the other's."""
    pem = _as_is(files, number)
    # ssl reads the files by itself: what was read here was checked if they are the same after it too
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.ca.decode())
    # a key that is locked would be asked for on the terminal
    context.load_cert_chain(files.cert, files.key, password="")
    if _as_is(files, number) != pem:
        raise ValueError("the files change while they are read")
    return pem


def _as_is(files: TlsFiles, number: int) -> Pem:
    return Pem(files.cert.read_bytes(), files.key.read_bytes(), files.ca.read_bytes(), number)
