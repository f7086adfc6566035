"""A mixture of sources that believes those that knew."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.model.blend import Blend

FIRST, SECOND = 0, 1


def _outcomes(count: int, first_knows: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    knows = rng.random(count) < first_knows
    chances = np.where(knows[:, None], [0.5, 0.01], [0.01, 0.5])
    return chances, np.zeros(count, np.int64)


def test_before_anything_came_all_sources_are_believed_alike() -> None:
    np.testing.assert_allclose(Blend(2, 4).weights_CK, np.full((2, 4), 0.25))


def test_the_source_that_knew_more_often_is_believed_more() -> None:
    blend = Blend(1, 2)
    blend.learn(*_outcomes(2_000, first_knows=0.8))
    # each outcome tells clearly who knew it, so the weights come near to the shares
    np.testing.assert_allclose(blend.weights_CK[0], [0.8, 0.2], atol=0.03)


def test_a_source_that_grows_stale_loses_its_say() -> None:
    blend = Blend(1, 2)
    blend.learn(*_outcomes(2_000, first_knows=0.9))
    for _ in range(20):
        blend.learn(*_outcomes(2_000, first_knows=0.1))
    assert blend.weights_CK[0, SECOND] > 0.85


def test_a_source_that_was_useless_can_come_back() -> None:
    blend = Blend(1, 2)
    for _ in range(30):
        blend.learn(*_outcomes(2_000, first_knows=1.0))
    for _ in range(30):
        blend.learn(*_outcomes(2_000, first_knows=0.0))
    assert blend.weights_CK[0, SECOND] > 0.9


def test_contexts_learn_apart() -> None:
    blend = Blend(2, 2)
    chances, contexts = _outcomes(1_000, first_knows=0.9)
    blend.learn(chances, contexts)
    np.testing.assert_allclose(blend.weights_CK[1], [0.5, 0.5])


def test_what_nobody_foresaw_teaches_nothing() -> None:
    blend = Blend(1, 2)
    blend.learn(np.zeros((10, 2)), np.zeros(10, np.int64))
    np.testing.assert_allclose(blend.weights_CK, [[0.5, 0.5]])


@pytest.mark.parametrize("parts", [1, 4])
def test_a_restored_blend_goes_on_as_the_first_would_have(parts: int) -> None:
    blend, copy = Blend(1, 2), Blend(1, 2)
    for _ in range(parts):
        blend.learn(*_outcomes(500, 0.7))
    copy.restore(blend.arrays())
    for each in (blend, copy):
        each.learn(*_outcomes(500, 0.3))
    np.testing.assert_array_equal(blend.weights_CK, copy.weights_CK)
