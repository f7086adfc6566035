"""Manifests, rendered once for all tests of them."""

from __future__ import annotations

import shutil

import pytest

from deploy.check.combinations import Combination, components, render
from deploy.check.manifests import Manifest


@pytest.fixture(scope="session")
def has_kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on PATH")


@pytest.fixture(scope="session")
def everything(has_kubectl: None) -> list[Manifest]:
    """Production with all components. Not to be changed."""
    return render(Combination("production", tuple(components())))


@pytest.fixture(scope="session")
def dev(has_kubectl: None) -> list[Manifest]:
    """One of each, with the canary track. Not to be changed."""
    return render(Combination("dev", ("canary",)))
