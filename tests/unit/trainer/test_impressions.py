"""Impressions joined with what followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headrace.model.candidates import CANDIDATE_FEATURES, FEATURE_SCHEMA
from headrace.runtime.privacy import Privacy
from headrace.trainer.impressions import ImpressionJoin
from headrace.trainer.records import Events, Shown

_MINUTE = 60_000_000
VIEW, CART, REMOVE, PURCHASE = 1, 2, 3, 4


def _shown(token: str, ordinals: list[int], time_us: int = 0, schema: str = FEATURE_SCHEMA) -> Shown:
    features = np.full((len(ordinals), len(CANDIDATE_FEATURES)), ordinals[0], np.float32)
    return Shown(token, "u:1", np.array(ordinals, np.uint32), features, schema, time_us)


def _did(*events: tuple[str, int, int, int]) -> Events:
    """(token, ordinal, code, time) each."""
    tokens, ordinals, codes, times = zip(*events, strict=True) if events else ((), (), (), ())
    return Events(
        np.zeros(len(events), np.int64),
        np.array(ordinals, np.uint32),
        np.array(codes, np.uint8),
        np.array(times, np.int64),
        np.zeros(len(events), np.uint8),
        ("u:1",),
        tokens,
    )


def _later(minutes: int) -> Events:
    return _did(("", 1, VIEW, minutes * _MINUTE))


def test_an_impression_becomes_a_group_when_its_window_has_passed() -> None:
    join = ImpressionJoin(1800, 10)
    assert len(join.fold([_shown("t", [5, 6])], _did(("t", 6, VIEW, _MINUTE)))) == 0
    groups = join.fold([], _later(31))
    assert (groups.sizes_G.tolist(), groups.labels_R.tolist()) == ([2], [0, VIEW])
    assert groups.features_RF[:, 0].tolist() == [5, 5]
    assert len(join) == 0


def test_the_strongest_thing_that_followed_counts() -> None:
    join = ImpressionJoin(1800, 10)
    followed = _did(("t", 5, VIEW, 1), ("t", 5, PURCHASE, 2), ("t", 5, CART, 3), ("t", 6, REMOVE, 4))
    join.fold([_shown("t", [5, 6])], followed)
    assert join.fold([], _later(31)).labels_R.tolist() == [PURCHASE, 0]


def test_what_comes_too_late_does_not_count() -> None:
    join = ImpressionJoin(1800, 10)
    join.fold([_shown("t", [5])], _did())
    groups = join.fold([], _did(("t", 5, VIEW, 31 * _MINUTE)))
    assert groups.labels_R.tolist() == [0]


def test_other_features_are_passed_over() -> None:
    join = ImpressionJoin(1800, 10)
    join.fold([_shown("t", [5], schema="another")], _did())
    assert len(join) == 0


def test_the_oldest_go_first_when_there_are_too_many() -> None:
    join = ImpressionJoin(1800, 2)
    groups = join.fold([_shown(str(at), [at + 1]) for at in range(5)], _did())
    assert (len(join), groups.features_RF[:, 0].tolist()) == (2, [1, 2, 3])


def test_those_that_wait_survive_a_restart() -> None:
    join, copy = ImpressionJoin(1800, 10), ImpressionJoin(1800, 10)
    join.fold([_shown("a", [5, 6]), _shown("b", [7])], _did(("a", 6, CART, _MINUTE)))
    copy.restore(join.arrays())
    first, second = (each.fold([], _later(40)) for each in (join, copy))
    for mine, theirs in zip((first.features_RF, first.labels_R), (second.features_RF, second.labels_R), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert first.labels_R.tolist() == [0, CART, 0]


_KEYED = Privacy(b"k" * 32)


def _looked(token: str, user_key: str, device_key: str = "", minutes: int = 1) -> Events:
    """Somebody looks at item 5."""
    done = _did((token, 5, VIEW, minutes * _MINUTE))
    return replace(done, user_keys=(user_key,), device_keys=(device_key,))


def _labels(*events: Events) -> list[int]:
    """What the list [5, 6], shown to u:1, is labelled with after some events."""
    join = ImpressionJoin(1800, 10, _KEYED)
    join.fold([_shown("t", [5, 6])], _did())
    for each in events:
        join.fold([], each)
    return join.fold([], _later(40)).labels_R.tolist()


def test_another_persons_token_earns_nothing() -> None:
    assert _labels(_looked("t", "u:1")) == [VIEW, 0]
    assert _labels(_looked("t", "u:2")) == [0, 0]
    assert _labels(_looked("t", "v:2", "v:2")) == [0, 0]


def test_a_token_that_nobody_gave_out_earns_nothing() -> None:
    assert _labels(_looked("forged", "u:1")) == [0, 0]


def test_a_token_given_to_a_device_counts_after_its_log_in() -> None:
    join = ImpressionJoin(1800, 10, _KEYED)
    join.fold([replace(_shown("t", [5]), user_key="v:phone")], _did())
    join.fold([], _looked("t", "u:1", "v:phone"))
    assert join.fold([], _later(40)).labels_R.tolist() == [VIEW]


def test_a_repeated_click_is_one_label_and_none_once_its_list_is_closed() -> None:
    join = ImpressionJoin(1800, 10, _KEYED)
    join.fold([_shown("t", [5, 6])], _did(*[("t", 5, VIEW, at) for at in range(3)]))
    assert join.fold([], _later(40)).labels_R.tolist() == [VIEW, 0]
    assert len(join.fold([], _looked("t", "u:1", minutes=41))) == 0
    assert len(join.fold([], _later(90))) == 0


def test_a_list_that_is_logged_twice_keeps_what_followed() -> None:
    join = ImpressionJoin(1800, 10, _KEYED)
    join.fold([_shown("t", [5, 6])], _looked("t", "u:1"))
    join.fold([_shown("t", [5, 6])], _did())
    assert join.fold([], _later(40)).labels_R.tolist() == [VIEW, 0]
