"""The Kubernetes that a registry runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.runtime.settings import SettingsError

if TYPE_CHECKING:
    from lightkube import AsyncClient


def cluster_client(variable: str, namespace: str) -> AsyncClient:
    """A client of its API; an empty namespace is the pod's own.

    SettingsError names the variable that asks for it: there is no Kubernetes, or the extra is not installed.
    """
    try:
        from lightkube import AsyncClient
        from lightkube.core.exceptions import ConfigError
    except ImportError as error:
        raise SettingsError(f"{variable} needs the extra kubernetes: pip install 'headrace[kubernetes]'") from error
    try:
        return AsyncClient(namespace=namespace or None)
    except ConfigError as error:
        raise SettingsError(f"{variable}: {error}") from error
