"""Hashed n-grams under a truncated SVD."""

from __future__ import annotations

import numpy as np

from headrace.model.text.ngrams import HashedNgramEncoder

TITLES = ["red ceramic mug", "blue ceramic mug", "wooden garden chair", "steel garden chair", "bird house"]


def _likeness(encoder: HashedNgramEncoder, one: str, other: str) -> float:
    first, second = encoder.encode([one, other])
    return float(first @ second)


def test_fewer_titles_than_dimensions_work() -> None:
    vectors = HashedNgramEncoder.fit(TITLES, 64, 1).encode(TITLES)
    assert vectors.shape == (5, 64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_an_encoder_can_be_fitted_on_nothing() -> None:
    encoder = HashedNgramEncoder.fit([], 16, 1)
    assert _likeness(encoder, "red mug", "red mug") > 0.99


def test_a_typing_error_stays_near() -> None:
    encoder = HashedNgramEncoder.fit(TITLES, 16, 1)
    assert _likeness(encoder, "ceramic mug", "ceramik mug") > _likeness(encoder, "ceramic mug", "garden chair") + 0.3


def test_case_and_punctuation_do_not_matter() -> None:
    one, other = HashedNgramEncoder.fit(TITLES, 16, 1).encode(["Garden-Chair!", "garden chair"])
    np.testing.assert_array_equal(one, other)


def test_a_text_without_words_is_the_zero_vector() -> None:
    assert not HashedNgramEncoder.fit(TITLES, 16, 1).encode(["", "…"]).any()


def test_the_same_titles_and_seed_give_the_same_encoder() -> None:
    one, other = (HashedNgramEncoder.fit(TITLES, 16, 3) for _ in range(2))
    np.testing.assert_array_equal(one.projection_VT, other.projection_VT)


def test_a_new_fit_is_turned_onto_the_one_before() -> None:
    old = HashedNgramEncoder.fit(TITLES[:3], 16, 1)
    new = HashedNgramEncoder.fit(TITLES, 16, 1)
    turned = new.aligned_to(old, TITLES[:3])
    before, after = old.encode(TITLES[:3]), turned.encode(TITLES[:3])
    assert float((before * after).sum(axis=1).min()) > 0.9
    # turning changes no likeness
    np.testing.assert_allclose(
        turned.encode(TITLES) @ turned.encode(TITLES).T, new.encode(TITLES) @ new.encode(TITLES).T, atol=1e-4
    )
