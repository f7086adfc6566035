"""Plans are acted on in order and for a time; arms follow the key first seen; sums are by arm."""

from __future__ import annotations

import pytest

from headrace.model.arms import CANARY, STABLE
from headrace.ranker.arm_counts import ArmCounts
from headrace.ranker.assignment import Assigner, Placement
from headrace.ranker.breaker import Breaker
from headrace.ranker.exposure import Exposure
from headrace.ranker.fallback import Reason
from headrace.ranker.marks import UNMARKED, Marks, forwarding, marks_of
from headrace.ranker.plan import Assignment, HeldPlan, ReleaseManifest, ServingPlan
from headrace.ranker.trust import may_force
from headrace.runtime.errors import FailedPreconditionError


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def manifest(release: str) -> ReleaseManifest:
    return ReleaseManifest(release, "main", 1, "schema", 16, ())


def plan(sequence: int, canary: str = "r-2", rollout: str = "ro-1", share_bp: int = 5_000) -> ServingPlan:
    return ServingPlan(
        sequence, manifest("r-1"), manifest(canary) if canary else None, Assignment(rollout, "salt", share_bp), None, 30
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def held(clock: Clock) -> HeldPlan:
    return HeldPlan(clock)


def test_before_any_plan_nobody_is_sent_to_the_canary(held):
    assert (held.newest, held.is_stale, held.assignment()) == (None, True, None)


def test_a_plan_holds_for_its_time_and_for_as_long_again_when_it_is_confirmed(held, clock):
    assert held.take(plan(3))
    clock.now_s += 29
    assert not held.take(plan(3))
    clock.now_s += 29
    assert held.assignment() == Assignment("ro-1", "salt", 5_000)
    clock.now_s += 1
    assert (held.is_stale, held.assignment()) == (True, None)
    assert held.newest is not None
    assert held.newest.of(STABLE) == manifest("r-1")


def test_an_older_plan_neither_counts_nor_confirms(held, clock):
    held.take(plan(3))
    clock.now_s += 29
    assert not held.take(plan(2, canary="r-9"))
    clock.now_s += 1
    assert held.is_stale
    assert held.newest is not None
    assert held.newest.of(CANARY) == manifest("r-2")


@pytest.mark.parametrize("made", [plan(1, canary=""), plan(1, share_bp=0), ServingPlan(1, None, valid_for_s=30)])
def test_without_canary_share_or_assignment_nobody_is_sent(held, made):
    held.take(made)
    assert held.assignment() is None


def test_the_canary_may_be_ahead_of_the_door_and_an_increment_behind_it_for_a_while(held, clock):
    held.take(plan(3, "r-2"))
    assert held.is_canary("r-2", 1)
    assert not held.is_canary("r-3", 3)
    assert held.is_canary("r-3", 4)
    held.take(plan(4, "r-3"))
    assert held.is_canary("r-2", 3)
    clock.now_s += 30
    assert not held.is_canary("r-2", 3)
    assert held.is_canary("r-3", 3)


def test_what_another_rollout_tried_is_no_canary_of_this_one(held):
    held.take(plan(3, "r-2"))
    held.take(plan(4, "r-5", rollout="ro-2"))
    assert not held.is_canary("r-2", 4)
    assert not held.is_canary("", 9)


def placed(held: HeldPlan, visitor_id: str, user_id: str = "", marks: Marks = UNMARKED, track: str = STABLE):
    return Assigner(held, track, may_force("open sesame", with_tenants=False)).placed(visitor_id, user_id, marks)


def test_a_person_is_assigned_by_the_visitor_where_there_is_one(held):
    held.take(plan(1))
    for number in range(50):
        alone = placed(held, f"v{number}")
        assert placed(held, f"v{number}", "eve") == placed(held, f"v{number}", "bob") == alone
    assert len({placed(held, "", f"u{number}").is_for_canary for number in range(50)}) == 2


def test_marks_are_read_as_they_are_written():
    exposure = Exposure("ro-1", CANARY)
    marks = marks_of((("traceparent", "00"), *forwarding(CANARY, exposure)))
    assert (marks.forwarded_to, marks.rollout, marks.arm) == (CANARY, "ro-1", CANARY)
    assert marks_of((("user-agent", "grpc"),)) is marks_of(None) is UNMARKED


def test_a_forwarded_call_is_answered_by_the_track_that_it_names_or_refused(held):
    held.take(plan(1, share_bp=10_000))
    marks = Marks(forwarded_to=CANARY, rollout="ro-1", arm=CANARY)
    answered = Exposure("ro-1", CANARY, CANARY, is_forwarded=True)
    assert placed(held, "v", marks=marks, track=CANARY) == Placement(answered, is_counted=False)
    with pytest.raises(FailedPreconditionError, match="has come to track 'stable'"):
        placed(held, "v", marks=marks)


def test_the_canary_track_sends_nobody_anywhere(held):
    held.take(plan(1, share_bp=10_000))
    assert placed(held, "v", track=CANARY) == Placement(Exposure(track=CANARY))


def test_sums_are_by_rollout_and_arm():
    counts = ArmCounts()
    stable, canary = (Placement(Exposure("ro-1", arm)) for arm in (STABLE, CANARY))
    counts.answered(stable, 0.5, is_degraded=True, fallback="", track=STABLE)
    counts.answered(canary, 10.0, is_degraded=False, fallback="", track=CANARY)
    counts.answered(canary, 10.1, is_degraded=False, fallback=Reason.TIMEOUT, track=STABLE)
    counts.answered(canary, 5_000, is_degraded=False, fallback=Reason.TIMEOUT, track=STABLE)
    counts.failed(canary)
    counts.answered(Placement(Exposure()), 1.0, is_degraded=False, fallback="", track=STABLE)
    counts.answered(Placement(Exposure(), True, is_counted=False), 1.0, is_degraded=False, fallback="", track=CANARY)
    first, second, outside = counts.reports()
    assert (first.rollout, first.arm, first.answers, first.degraded, first.errors) == ("ro-1", STABLE, 1, 1, 0)
    assert first.latency == [1] + [0] * 10
    assert (second.arm, second.answers, dict(second.fallbacks), second.errors) == (CANARY, 3, {"timeout": 2}, 1)
    assert second.latency == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1]
    assert (outside.rollout, outside.arm, outside.answers) == ("", STABLE, 1)
    assert counts.fallbacks == 2


def test_sums_of_rollouts_long_past_are_forgotten():
    counts = ArmCounts()
    counts.failed(Placement(Exposure()))
    for number in range(40):
        counts.failed(Placement(Exposure(f"ro-{number}", CANARY)))
    assert [report.rollout for report in counts.reports()] == ["", *(f"ro-{number}" for number in range(24, 40))]


def test_a_breaker_says_whether_it_is_open_without_letting_anybody_try(clock):
    breaker = Breaker(2, 5.0, clock)
    breaker.fail()
    assert not breaker.is_open
    breaker.fail()
    clock.now_s += 6
    assert breaker.is_open
    assert breaker.is_open
    assert breaker.allows()
    assert not breaker.allows()
    breaker.succeed()
    assert not breaker.is_open
