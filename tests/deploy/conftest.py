"""Manifests, rendered once for all tests of them."""

from __future__ import annotations

import os
import shutil

import pytest

from deploy.check.combinations import Combination, components, render
from deploy.check.manifests import Manifest


@pytest.fixture(scope="session")
def has_kubectl() -> None:
    """Without kubectl the test is skipped, or fails where TEST_REQUIRE_KUBECTL says so."""
    if shutil.which("kubectl") is None:
        if os.environ.get("TEST_REQUIRE_KUBECTL"):
            pytest.fail("no kubectl on PATH")
        pytest.skip("no kubectl on PATH")


@pytest.fixture(scope="session")
def everything(has_kubectl: None) -> list[Manifest]:
    """Production with all components. Not to be changed."""
    return render(Combination("production", tuple(components())))


@pytest.fixture(scope="session")
def dev(has_kubectl: None) -> list[Manifest]:
    """One of each, with the canary track. Not to be changed."""
    return render(Combination("dev", ("canary",)))
