from __future__ import annotations

from headrace.runtime.quantiles import RecentQuantiles


def test_there_is_a_zero_before_the_first_value() -> None:
    assert RecentQuantiles().at(0.99) == 0.0


def test_quantiles_are_values_that_were_measured() -> None:
    lag = RecentQuantiles()
    lag.extend(float(number) for number in range(100, 0, -1))
    assert (lag.at(0.0), lag.at(0.5), lag.at(0.99), lag.at(1.0)) == (1.0, 51.0, 100.0, 100.0)


def test_only_the_newest_values_count() -> None:
    lag = RecentQuantiles(size=3)
    lag.extend([1_000.0, 1.0, 2.0])
    lag.add(3.0)
    assert lag.at(1.0) == 3.0
