"""The five services as real processes, shared by the end-to-end tests of one module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.cli.suite import Suite


@pytest.fixture(scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    data_dir: Path = tmp_path_factory.mktemp("suite")
    async with Suite(data_dir) as running:
        yield running
