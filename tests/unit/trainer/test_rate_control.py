"""The rate of learning follows how well slices are foreseen."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.trainer.arrays import Arrays
from headrace.trainer.forecast import SOURCES, Outcomes
from headrace.trainer.learner import Learner
from headrace.trainer.rate_control import RateControl, forecast_loss
from headrace.trainer.settings import TrainerSettings

# the noise of a slice's loss is 0.3 nats, a planted change 1 nat: it is found within this many slices
_FOUND_WITHIN = 30


def _losses(mean: float, count: int, seed: int = 1) -> list[float]:
    return (mean + 0.3 * np.random.default_rng(seed).standard_normal(count)).tolist()


def _noted(control: RateControl, losses: list[float]) -> list[float]:
    """The factor after each of some losses."""
    found = []
    for loss in losses:
        control.note(loss)
        found.append(control.multiplier)
    return found


def _copied(arrays: Arrays) -> Arrays:
    return {name: value.copy() for name, value in arrays.items()}


@pytest.mark.parametrize("seed", range(5))
def test_a_world_that_rests_changes_no_rate(settings: TrainerSettings, seed: int) -> None:
    control = RateControl(settings)
    assert set(_noted(control, _losses(6.0, 3_000, seed))) == {1.0}
    assert control.drifts == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_change_for_the_worse_raises_the_rate_for_a_while(settings: TrainerSettings, seed: int) -> None:
    control = RateControl(settings)
    _noted(control, _losses(6.0, 300, seed))
    rates = _noted(control, _losses(7.0, 200, seed + 100))
    found = int(np.argmax(rates))
    assert control.drifts == 1
    assert found < _FOUND_WITHIN
    assert rates[found] == settings.drift_rate_boost
    half_life = int(settings.drift_half_life_slices)
    assert rates[found + half_life] == pytest.approx(1 + (settings.drift_rate_boost - 1) / 2)
    assert rates[found + 6 * half_life] < 1.05


def test_a_change_for_the_better_raises_nothing(settings: TrainerSettings) -> None:
    control = RateControl(settings)
    assert set(_noted(control, _losses(6.0, 300) + _losses(5.0, 100, seed=2))) == {1.0}


def test_changes_that_come_again_and_again_ask_for_a_rotation(settings: TrainerSettings) -> None:
    control = RateControl(settings.model_copy(update={"rotation_drifts": 2, "rotation_window_slices": 200}))
    _noted(control, _losses(5.0, 100) + _losses(6.0, 60, seed=2))
    assert (control.drifts, control.wants_rotation) == (1, False)
    _noted(control, _losses(7.0, 60, seed=3))
    assert (control.drifts, control.wants_rotation) == (2, True)
    _noted(control, _losses(7.0, 200, seed=4))
    assert not control.wants_rotation


def test_a_loss_that_gets_no_better_lowers_the_rate_to_its_floor(settings: TrainerSettings) -> None:
    control = RateControl(settings.model_copy(update={"plateau_slices": 50, "plateau_rate_floor": 0.3}))
    rates = _noted(control, [6.0] * 400)
    assert (rates[0], rates[48], rates[99], rates[149], rates[-1]) == (1.0, 1.0, 0.5, 0.3, 0.3)


def test_a_loss_that_gets_better_keeps_the_rate(settings: TrainerSettings) -> None:
    control = RateControl(settings.model_copy(update={"plateau_slices": 50, "plateau_rate_floor": 0.3}))
    assert set(_noted(control, np.linspace(6.0, 5.5, 400).tolist())) == {1.0}


def test_a_change_ends_a_plateau(settings: TrainerSettings) -> None:
    control = RateControl(settings.model_copy(update={"plateau_slices": 50, "plateau_rate_floor": 0.3}))
    _noted(control, _losses(6.0, 400))
    assert control.multiplier == 0.3
    assert max(_noted(control, _losses(7.0, _FOUND_WITHIN, seed=2))) == settings.drift_rate_boost


@pytest.mark.parametrize("cut", [0, 5, 250, 320, 1_100, 1_900])
def test_a_control_brought_back_goes_on_as_the_first(settings: TrainerSettings, cut: int) -> None:
    chosen = settings.model_copy(update={"plateau_slices": 40, "plateau_rate_floor": 0.5})
    losses = _losses(6.0, 300) + _losses(7.0, 1_500, seed=2) + _losses(8.0, 200, seed=3)
    control, copy = RateControl(chosen), RateControl(chosen)
    _noted(control, losses[:cut])
    copy.restore(_copied(control.arrays()))
    assert _noted(control, losses[cut:]) == _noted(copy, losses[cut:])
    assert control.drifts == copy.drifts == 2
    for name, value in control.arrays().items():
        np.testing.assert_array_equal(value, copy.arrays()[name], err_msg=name)


def test_what_is_kept_is_bounded(settings: TrainerSettings) -> None:
    control = RateControl(settings)
    _noted(control, _losses(6.0, 5_000))
    assert len(control.arrays()["losses"]) <= 1_024


def test_a_loss_that_is_not_finite_is_passed_over(settings: TrainerSettings) -> None:
    control = RateControl(settings)
    control.note(np.nan)
    assert len(control.arrays()["losses"]) == 0


def test_the_loss_is_that_of_the_towers_alone() -> None:
    chances = np.full((2, len(SOURCES)), 0.9)
    chances[:, SOURCES.index("vector")] = [0.5, 0.125]
    ranks = np.ones(2, np.int64)
    assert forecast_loss(Outcomes(ranks, ranks, ranks, ranks, chances, ranks)) == pytest.approx(2 * np.log(2))


def test_the_rate_reaches_the_rows_of_items(settings: TrainerSettings, shop: object) -> None:
    rows = []
    for is_upset in (False, True):
        learner = Learner(settings)
        learner.learn_products(shop.products())
        if is_upset:
            _noted(learner.rate_control, [0.0] * 100 + [9.0] * 20)
        # one step: Adam's first moves are as long as the rate
        learner.learn(shop.visits(0, 10), 0)
        rows.append(learner.arrays()["rows.rows_ND"].copy())
    assert learner.rate_control.multiplier > 2
    np.testing.assert_allclose(rows[1], rows[0] * learner.rate_control.multiplier, rtol=1e-3, atol=1e-7)
