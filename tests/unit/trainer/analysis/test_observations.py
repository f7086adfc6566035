"""The fold of what was shown and what came of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.rollouts_gate_two import HourlySums
from headrace.trainer.analysis.evidence import Moments
from headrace.trainer.analysis.observations import Observations, Observed
from headrace.trainer.analysis.policy import METRICS, Metric
from headrace.trainer.analysis.variance_reduction import visit_covariates

MINUTE_US, HOUR_US, DAY_US = 60_000_000, 3_600_000_000, 86_400_000_000
RO, VIEW, CART = "ro-000001", "detail-page-view", "add-to-cart"
EVE, BOB = 11, 22


def _watching() -> Observations:
    watching = Observations()
    watching.begin(RO, DAY_US)
    return watching


def _clicks(watching: Observations, hours: float = 3.0) -> tuple[Moments, Moments]:
    found = watching.evidence(DAY_US + int(hours * HOUR_US)).metrics[0]
    return found.stable, found.canary


def test_a_look_at_what_was_shown_counts_for_the_persons_arm() -> None:
    watching = _watching()
    watching.shown(DAY_US, EVE, RO, "canary", [1, 2, 3])
    watching.shown(DAY_US, BOB, RO, "stable", [1, 2, 3])
    watching.acted(DAY_US + MINUTE_US, EVE, VIEW, [2])
    watching.acted(DAY_US + MINUTE_US, EVE, VIEW, [2])
    watching.acted(DAY_US + MINUTE_US, EVE, VIEW, [9])
    stable, canary = _clicks(watching)
    assert (stable.people, stable.sums[:2]) == (1, (0.0, 1.0))
    assert (canary.people, canary.sums[:2]) == (1, (1.0, 1.0))


def test_an_event_that_names_its_answer_counts_for_that_or_for_nothing() -> None:
    watching = _watching()
    watching.shown(DAY_US, EVE, RO, "canary", [1, 2], answer="a")
    watching.shown(DAY_US + 35 * MINUTE_US, EVE, RO, "canary", [1, 3], answer="b")
    # of the first list, after its window; of the second, twice; of a list that did not show it; of none that is known
    for item, answer in ((1, "a"), (3, "b"), (3, "b"), (2, "b"), (1, "c")):
        watching.acted(DAY_US + 36 * MINUTE_US, EVE, VIEW, [item], answer)
    assert _clicks(watching)[1].sums[:2] == (1.0, 2.0)


def test_a_visit_counts_when_its_window_has_closed_and_not_before() -> None:
    watching = _watching()
    watching.shown(DAY_US, EVE, RO, "canary", [1])
    watching.acted(DAY_US + MINUTE_US, EVE, VIEW, [1])
    assert _clicks(watching, 0.9)[1].people == 0
    assert watching.evidence(DAY_US).canary.people == 1
    assert _clicks(watching, 1.1)[1].people == 1


def test_what_comes_after_the_window_does_not_count() -> None:
    watching = _watching()
    watching.shown(DAY_US, EVE, RO, "canary", [1, 2])
    watching.acted(DAY_US + 29 * MINUTE_US, EVE, VIEW, [1])
    watching.acted(DAY_US + 31 * MINUTE_US, EVE, VIEW, [2])
    assert _clicks(watching)[1].sums[0] == 1.0


def test_lists_within_half_an_hour_are_one_visit_and_later_ones_another() -> None:
    watching = _watching()
    for minute in (0, 10, 45):
        watching.shown(DAY_US + minute * MINUTE_US, EVE, RO, "canary", [1])
    watching.acted(DAY_US + 50 * MINUTE_US, EVE, VIEW, [1])
    canary = _clicks(watching)[1]
    assert (canary.people, canary.sums[:2]) == (1, (1.0, 2.0))


def test_somebody_stays_in_the_arm_of_the_first_list_shown() -> None:
    watching = _watching()
    watching.shown(DAY_US, EVE, RO, "canary", [1])
    watching.shown(DAY_US + HOUR_US, EVE, RO, "stable", [1])
    stable, canary = _clicks(watching)
    assert (stable.people, canary.people, canary.sums[1]) == (0, 1, 2.0)


def test_lists_of_an_older_plan_are_in_neither_arm() -> None:
    watching = _watching()
    watching.shown(DAY_US, EVE, "ro-000000", "canary", [1])
    watching.shown(DAY_US, BOB, "", "", [1])
    assert [arm.people for arm in _clicks(watching)] == [0, 0]


def test_what_people_did_before_a_step_is_what_is_known_of_them() -> None:
    watching = Observations()
    watching.shown(0, EVE, "", "", [1])
    watching.acted(MINUTE_US, EVE, VIEW, [1])
    watching.begin(RO, 3 * HOUR_US)
    watching.shown(DAY_US, EVE, RO, "canary", [1])
    canary = _clicks(watching)[1]
    # one click in one visit, with two visits more as a prior
    assert canary.sums == pytest.approx((0.0, 1.0, 1.0 / 3.0, 1.0 / 3.0), rel=1e-3)


def test_a_step_begins_anew_and_knows_the_one_before() -> None:
    watching = _watching()
    watching.shown(DAY_US, EVE, RO, "stable", [1])
    watching.begin(RO, DAY_US + 2 * HOUR_US)
    assert [arm.people for arm in _clicks(watching, 2.0)] == [0, 0]
    watching.shown(DAY_US + 2 * HOUR_US, EVE, RO, "canary", [1])
    stable, canary = _clicks(watching, 5.0)
    assert (stable.people, canary.people) == (0, 1)
    assert canary.sums[3] == pytest.approx(1.0 / 3.0, rel=1e-2)


def test_calibration_counts_products_whose_probability_was_told() -> None:
    watching = _watching()
    watching.shown(DAY_US, EVE, RO, "canary", [1, 2], [0.25, 0.5])
    watching.shown(DAY_US + MINUTE_US, EVE, RO, "canary", [3])
    for item in (2, 3):
        watching.acted(DAY_US + 2 * MINUTE_US, EVE, VIEW, [item])
    canary = watching.evidence(DAY_US + 3 * HOUR_US).canary
    assert (canary.predicted, canary.clicked) == (0.75, 1.0)


def _busy(watching: Observations, first: int, last: int) -> None:
    rng = np.random.default_rng(3)
    for number in range(last):
        person, minute, item = int(rng.integers(0, 40)), number * 3, int(rng.integers(0, 6))
        kind = VIEW if rng.random() < 0.7 else CART
        if number >= first:
            time_us = DAY_US + minute * MINUTE_US
            watching.shown(time_us, person, RO, "canary" if person % 3 == 0 else "stable", [0, 1, 2, 3], [0.1] * 4)
            watching.acted(time_us + MINUTE_US, person, kind, [item])


def _all(watching: Observations) -> Observed:
    return watching.evidence(DAY_US + 100 * HOUR_US)


def test_a_fold_that_is_stopped_and_restored_ends_the_same() -> None:
    whole, first, second = _watching(), _watching(), Observations()
    _busy(whole, 0, 400)
    _busy(first, 0, 200)
    second.restore(first.arrays(), json.loads(json.dumps(first.state())))
    _busy(second, 200, 400)
    assert _all(second) == _all(whole)


def test_state_of_other_metrics_is_refused() -> None:
    other = Observations((Metric("visits_per_person", (), share=1.0),))
    with pytest.raises(ValueError, match="clicks_per_visit"):
        other.restore(_watching().arrays(), _watching().state())


def test_whoever_is_forgotten_leaves_nothing() -> None:
    watching, without = _watching(), _watching()
    for one in (watching, without):
        one.shown(DAY_US, BOB, RO, "stable", [1])
        one.acted(DAY_US + MINUTE_US, BOB, VIEW, [1])
    watching.shown(DAY_US + MINUTE_US, EVE, RO, "canary", [1])
    watching.forget([EVE])
    watching.acted(DAY_US + 2 * MINUTE_US, EVE, VIEW, [1])
    assert _all(watching) == _all(without)
    watching.shown(DAY_US + 200 * HOUR_US, EVE, RO, "canary", [1])
    watching.evidence(DAY_US + 300 * HOUR_US)
    watching.forget([EVE])
    assert _all(watching) == _all(without)
    assert EVE not in watching.arrays()["person"].tolist()
    assert str(EVE) not in json.dumps(watching.state()["visits"])


def test_memory_is_bounded_and_those_longest_away_go() -> None:
    watching = Observations(most_people=50)
    for person in range(120):
        watching.shown(person * HOUR_US, person, "", "", [1])
    watching.evidence(200 * HOUR_US)
    people = watching.arrays()["person"].tolist()
    assert len(people) <= 50
    assert 119 in people
    assert 0 not in people


def test_when_all_are_in_arms_new_people_are_passed_over_and_counted() -> None:
    watching = Observations(most_people=10)
    watching.begin(RO, DAY_US)
    for person in range(25):
        watching.shown(DAY_US + person, person, RO, "canary" if person % 2 else "stable", [1])
    found = watching.evidence(DAY_US + 3 * HOUR_US)
    assert (found.stable.people, found.canary.people) == (5, 5)
    assert watching.state()["passed_over"] == 15


def test_the_benchmarks_sums_are_those_of_the_fold() -> None:
    rng, people, visits = np.random.default_rng(9), 30, 200
    person, clicks = rng.integers(0, people, visits), rng.integers(0, 4, visits)
    watching = Observations(METRICS[:1])
    watching.begin(RO, DAY_US)
    known = visit_covariates(np.zeros(people), np.zeros(people))
    # two hours apart, so that every list is a visit of its own; it is over an hour later
    hourly = HourlySums(METRICS[0], person, 2 * np.arange(visits) + 2, clicks.astype(float), known, 2 * visits + 4)
    for number in range(visits):
        time_us = DAY_US + 2 * number * HOUR_US
        watching.shown(time_us, int(person[number]), RO, "stable", [1, 2, 3])
        watching.acted(time_us + 1, int(person[number]), VIEW, list(range(1, 1 + clicks[number])))
        found, expected = _clicks(watching, 2 * number + 1.5)[0], hourly.at(2 * number + 2)
        assert found.people == expected.people
        assert found.sums == pytest.approx(expected.sums)
        assert found.products == pytest.approx(expected.products)
