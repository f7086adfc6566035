"""What every text encoder promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from headrace.model.text.cache import CachedEncoder
from headrace.model.text.encoder import TextEncoder
from headrace.model.text.ngrams import HashedNgramEncoder

TITLES = ["red ceramic mug", "blue ceramic mug", "wooden garden chair", "steel garden chair set of 4", "bird house"]
KINDS = ("ngrams", "cached ngrams", "minilm", "lengths")
# these know words
READERS = ("ngrams", "minilm")


@pytest.fixture
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    fitted = HashedNgramEncoder.fit(TITLES, 16, 1)
    if request.param == "ngrams":
        return fitted
    if request.param == "cached ngrams":
        return CachedEncoder(fitted, limit=2)
    return request.getfixturevalue(request.param)


every_kind = pytest.mark.parametrize("encoder", KINDS, indirect=True)
readers = pytest.mark.parametrize("encoder", READERS, indirect=True)


@every_kind
def test_a_vector_has_the_stated_width_and_length_1(encoder: TextEncoder) -> None:
    vectors = encoder.encode(TITLES)
    assert vectors.shape == (len(TITLES), encoder.width)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@every_kind
def test_what_a_text_stands_beside_does_not_change_a_bit_of_its_vector(encoder: TextEncoder) -> None:
    # of all lengths and in any order, with one far longer and one empty
    texts = [*TITLES, "mug", "", "a very long title " * 20, *reversed(TITLES), "zzz"] * 7
    together = encoder.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], vector)


@every_kind
def test_no_texts_give_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.width)


@every_kind
def test_a_text_without_anything_in_it_is_the_zero_vector(encoder: TextEncoder) -> None:
    assert not encoder.encode(["mug", ""])[1].any()


@every_kind
def test_a_text_of_a_thousand_words_has_a_vector(encoder: TextEncoder) -> None:
    assert np.isfinite(encoder.encode(["garden chair " * 500])).all()


@every_kind
def test_threads_at_once_get_what_one_gets(encoder: TextEncoder) -> None:
    expected = encoder.encode(TITLES)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: encoder.encode(TITLES), range(16)):
            np.testing.assert_array_equal(found, expected)


@every_kind
def test_a_name_has_a_kind_and_prints_it(encoder: TextEncoder) -> None:
    assert encoder.name.kind
    assert str(encoder.name).startswith(encoder.name.kind)
    assert len(encoder.name.digest) in (0, 64)


@readers
def test_texts_that_share_words_lie_nearer_than_others(encoder: TextEncoder) -> None:
    red, blue, chair, *_ = encoder.encode(TITLES)
    assert red @ blue > red @ chair + 0.2


@readers
def test_case_does_not_matter(encoder: TextEncoder) -> None:
    one, other = encoder.encode(["Garden CHAIR", "garden chair"])
    np.testing.assert_array_equal(one, other)


@readers
def test_a_typing_error_stays_nearer_than_another_thing(encoder: TextEncoder) -> None:
    right, typo, other = encoder.encode(["ceramic mug", "ceramik mug", "garden chair"])
    assert right @ typo > right @ other + 0.2
