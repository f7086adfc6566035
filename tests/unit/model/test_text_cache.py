"""Each distinct text is computed once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from headrace.model.text.cache import CachedEncoder


class Gate:
    """Wraps an encoder: holds each call until it is let through, and fails while told to."""

    def __init__(self, encoder: object) -> None:
        self.name, self.width = encoder.name, encoder.width
        self.is_broken = False
        self.entered, self.open = threading.Event(), threading.Event()
        self._encoder = encoder

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.entered.set()
        assert self.open.wait(10)
        if self.is_broken:
            raise OSError("broken")
        return self._encoder.encode(texts)


def test_a_text_is_computed_once_in_a_call_and_over_calls(lengths: object) -> None:
    cached = CachedEncoder(lengths)
    first = cached.encode(["mug", "chair", "mug"])
    second = cached.encode(["chair", "bird", "mug"])
    assert lengths.encoded == ["mug", "chair", "bird"]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[[1, 0]], second[[0, 2]])


def test_the_texts_asked_for_last_are_kept(lengths: object) -> None:
    cached = CachedEncoder(lengths, limit=2)
    for text in ("mug", "chair", "mug", "bird", "mug", "chair"):
        cached.encode([text])
    assert lengths.encoded == ["mug", "chair", "bird", "chair"]


def test_more_texts_than_are_kept_are_all_answered(lengths: object) -> None:
    texts = [f"mug {'x' * at}" for at in range(20)]
    np.testing.assert_array_equal(CachedEncoder(lengths, limit=3).encode(texts), lengths.encode(texts))


def test_who_asks_while_a_text_is_computed_waits_for_it(lengths: object) -> None:
    gate = Gate(lengths)
    cached = CachedEncoder(gate)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cached.encode, ["mug"])
        assert gate.entered.wait(10)
        second = pool.submit(cached.encode, ["mug"])
        gate.open.set()
        np.testing.assert_array_equal(first.result(10), second.result(10))
    assert lengths.encoded == ["mug"]


def test_a_text_that_could_not_be_computed_is_tried_again(lengths: object) -> None:
    gate = Gate(lengths)
    gate.open.set()
    cached = CachedEncoder(gate)
    gate.is_broken = True
    with pytest.raises(OSError, match="broken"):
        cached.encode(["mug"])
    gate.is_broken = False
    assert cached.encode(["mug"]).any()


def test_it_goes_by_the_name_of_what_it_keeps(lengths: object) -> None:
    cached = CachedEncoder(lengths)
    assert (cached.name, cached.width) == (lengths.name, lengths.width)
