"""The gauge: an even sample of old log time, and what of it is still foreseen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from headrace.trainer.gauge import Gauge
from headrace.trainer.learner import Learner
from headrace.trainer.sequences import Pairs, Windows
from headrace.trainer.settings import TrainerSettings

_HOUR_US = 3_600_000_000
_ITEMS = 30


def _windows(hour: float, count: int, length: int = 3) -> Windows:
    """`count` people with `length` views a second apart, all of them new."""
    windows = Windows.empty(count, 5)
    windows.ordinals_BW[:, :length] = np.arange(count)[:, None] + np.arange(length)
    windows.event_types_BW[:, :length] = 1
    windows.times_us_BW[:, :length] = int(hour * _HOUR_US) + np.arange(length) * 1_000_000
    windows.lengths_B[:] = length
    return windows


def _filled(size: int, stretches: int, hours: int, each: int, seed: int = 3) -> Gauge:
    gauge, rng = Gauge(size, stretches, 5), np.random.default_rng(seed)
    for hour in range(hours):
        gauge.add(_windows(hour, each), rng)
    return gauge


def _wanting(sign: float) -> Callable[[Windows, Pairs], np.ndarray]:
    """People who want just what follows (1), or anything but that (-1)."""
    return lambda windows, pairs: sign * np.eye(_ITEMS, dtype=np.float32)[pairs.targets_P]


def _times_h(gauge: Gauge) -> np.ndarray:
    return gauge.arrays()["times_us_B"] // _HOUR_US


def test_a_stretch_keeps_no_more_than_its_share() -> None:
    gauge = _filled(4, 8, hours=3, each=10)
    assert np.bincount(_times_h(gauge)).tolist() == [4, 4, 4]


def test_too_many_stretches_thin_out_evenly() -> None:
    gauge = _filled(4, 8, hours=40, each=10)
    assert np.bincount(_times_h(gauge) // 8).tolist() == [4, 4, 4, 4, 4]


def test_every_window_of_a_stretch_is_kept_with_equal_chance() -> None:
    kept = np.concatenate([_times_h(_filled(5, 1, hours=8, each=10, seed=seed)) for seed in range(200)])
    # 5 of 80 windows, 200 times: 125 of each hour, and four standard deviations are 42
    assert (np.abs(np.bincount(kept, minlength=8) - 125) < 42).all()


def test_the_sample_of_a_stretch_that_is_over_stays() -> None:
    gauge, rng = Gauge(4, 8, 5), np.random.default_rng(3)
    gauge.add(_windows(0, 10), rng)
    before = gauge.arrays()["draws_B"].copy()
    gauge.add(_windows(1, 10), rng)
    np.testing.assert_array_equal(gauge.arrays()["draws_B"][:4], before)


def test_windows_in_which_nothing_followed_are_not_kept() -> None:
    gauge = Gauge(4, 8, 5)
    gauge.add(_windows(0, 10, length=1), np.random.default_rng(3))
    assert len(gauge) == 0


def test_a_size_of_none_keeps_nothing() -> None:
    assert len(_filled(0, 8, hours=2, each=10)) == 0


def test_what_was_foreseen_when_fresh_and_no_more_is_forgotten() -> None:
    gauge, rng = Gauge(4, 8, 5), np.random.default_rng(3)
    items = np.eye(_ITEMS, dtype=np.float32)
    gauge.add(_windows(0, 10), rng)
    first = gauge.measure(_wanting(1), items).metrics()
    gauge.add(_windows(1, 10), rng)
    second = gauge.measure(_wanting(-1), items).metrics()
    assert first == {"new_recall_at_20": 1.0, "new_mrr_at_20": 1.0}
    assert (second["old_fresh_recall_at_20"], second["old_recall_at_20"], second["forgetting"]) == (1.0, 0.0, 1.0)
    assert second["new_recall_at_20"] == 0.0


def test_what_was_never_foreseen_is_not_forgotten() -> None:
    gauge, items = _filled(4, 8, hours=3, each=10), np.eye(_ITEMS, dtype=np.float32)
    gauge.measure(_wanting(-1), items)
    metrics = gauge.measure(_wanting(1), items).metrics()
    assert (metrics["old_recall_at_20"], metrics["forgetting"]) == (1.0, -1.0)


def test_stretches_are_told_oldest_first() -> None:
    reading = _filled(4, 8, hours=3, each=10).measure(_wanting(1), np.eye(_ITEMS, dtype=np.float32))
    assert [stretch.begin_us // _HOUR_US for stretch in reading.stretches] == [0, 1, 2]
    assert [stretch.windows for stretch in reading.stretches] == [4, 4, 4]


def test_a_gauge_brought_back_goes_on_as_the_first() -> None:
    gauge, items = _filled(4, 3, hours=5, each=10), np.eye(_ITEMS, dtype=np.float32)
    gauge.measure(_wanting(1), items)
    copy = Gauge(4, 3, 5)
    copy.restore({name: value.copy() for name, value in gauge.arrays().items()})
    for each in (gauge, copy):
        each.add(_windows(9, 10), np.random.default_rng(7))
    assert gauge.measure(_wanting(-1), items) == copy.measure(_wanting(-1), items)


@pytest.mark.parametrize("size", [0, 7])
def test_learning_does_not_depend_on_the_gauge(settings: TrainerSettings, shop: object, size: int) -> None:
    digests = []
    for windows in (64, size):
        learner = Learner(settings.model_copy(update={"gauge_windows": windows}))
        learner.learn_products(shop.products())
        for number in range(3):
            learned = learner.learn(shop.visits(number, 20), number)
            learner.measure()
        digests.append(learned.deltas.digest())
    assert digests[0] == digests[1]


def test_a_learner_without_windows_has_nothing_to_read(settings: TrainerSettings, shop: object) -> None:
    learner = Learner(settings)
    learner.learn_products(shop.products())
    assert learner.measure() is None
