"""Numeric libraries use one thread in tests as in production; set before anything imports them."""

import os
from collections.abc import Sequence

import pytest

from headrace.runtime.threads import limit_threads

limit_threads()

import numpy as np  # noqa: E402

from headrace.model.text.encoder import EncoderName, TextEncoder  # noqa: E402
from headrace.model.text.errors import TextEncoderError  # noqa: E402
from headrace.model.text.pretrained import Pretrained  # noqa: E402


@pytest.fixture(scope="session")
def minilm() -> TextEncoder:
    """The packaged encoder. Without it the test is skipped, or fails where TEST_REQUIRE_TEXT says so."""
    try:
        return Pretrained().encoder()
    except TextEncoderError as error:
        if os.environ.get("TEST_REQUIRE_TEXT"):
            raise
        pytest.skip(str(error))


class LengthEncoder:
    """A frozen encoder that knows no words: the first of its two numbers grows with a text's length."""

    name = EncoderName("lengths", "0" * 64)
    width = 2

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded += texts
        angles = np.array([min(len(text), 90) / 60 for text in texts], np.float32)
        vectors = np.stack([np.sin(angles), np.cos(angles)], axis=1)
        return np.where(angles[:, None] > 0, vectors, 0).astype(np.float32)


@pytest.fixture
def lengths() -> LengthEncoder:
    return LengthEncoder()
