"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from headrace.trainer import analysis


@pytest.mark.parametrize("name", [found.name for found in pkgutil.iter_modules(analysis.__path__)])
def test_examples_run_as_written(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"{analysis.__name__}.{name}")).failed == 0
