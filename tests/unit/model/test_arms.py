"""People in arms: sticky, monotone, even, and independent between rollouts."""

from __future__ import annotations

from headrace.model.arms import CANARY, STABLE, arm_of, place_of

KEYS = [f"u:{number}" for number in range(20_000)]


def test_a_larger_share_keeps_everybody_who_was_in_the_canary_arm():
    inside: set[str] = set()
    for share_bp in (0, 100, 1_000, 5_000, 10_000):
        now = {key for key in KEYS if arm_of("ro-000001", share_bp, key) == CANARY}
        assert inside <= now
        inside = now
    assert inside == set(KEYS)


def test_a_share_is_of_people():
    # five standard deviations of a binomial of 20,000 at a tenth
    count = sum(arm_of("ro-000001", 1_000, key) == CANARY for key in KEYS)
    assert abs(count - 2_000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5


def test_two_rollouts_divide_people_independently():
    both = sum(place_of("ro-000001", key) < 5_000 and place_of("ro-000002", key) < 5_000 for key in KEYS)
    assert abs(both - 5_000) < 5 * (20_000 * 0.25 * 0.75) ** 0.5


def test_nobody_is_in_the_stable_arm():
    assert arm_of("ro-000001", 10_000, "") == STABLE
