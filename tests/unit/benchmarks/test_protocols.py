"""The published protocols that we are measured by: what is learned, what is asked, what is ranked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.ader import Ader
from benchmarks.amazon import Amazon
from benchmarks.continual import bars_of, quality, summarised
from headrace.trainer.sequences import pairs_of

# (period, session, item) in true order; items are numbered from 1 by first appearance
CLICKS = [
    *((0, session, item) for session in range(40) for item in (1, 2)),
    (1, 100, 1),
    (1, 101, 2),
    (1, 100, 3),
    (1, 100, 2),
    (1, 101, 3),
    (1, 102, 1),
    (1, 102, 1),
]


@pytest.fixture
def ader(tmp_path: Path) -> Ader:
    rows = pl.DataFrame(CLICKS, schema={"period": pl.UInt8, "session": pl.UInt32, "item": pl.UInt32}, orient="row")
    rows.write_parquet(tmp_path / "diginetica.parquet")
    return Ader.read("diginetica", tmp_path)


def test_a_test_drops_items_never_seen_before_and_sessions_of_one_click(ader: Ader) -> None:
    windows, known = ader.test_windows(1)
    asked = [row[:length].tolist() for row, length in zip(windows.ordinals_BW, windows.lengths_B, strict=True)]
    # session 101 is left with one click; item 3 is new
    assert asked == [[0, 1], [0, 0]]
    assert known == 2


def test_every_click_from_the_second_on_is_a_target(ader: Ader) -> None:
    windows, _ = ader.test_windows(1)
    assert pairs_of(windows).followed().targets_P.tolist() == [1, 0]


def test_one_session_of_twenty_is_never_learned_and_can_be_asked_about_alone(ader: Ader) -> None:
    [records] = ader.periods[0].slices(1)
    assert len(records.events) == 76
    held, known = ader.test_windows(1, held_out=True)
    others, _ = ader.test_windows(1, held_out=False)
    assert (len(held), len(others), known) == (1, 1, 2)


def test_parts_of_a_period_hold_all_that_is_learned_in_its_order(ader: Ader) -> None:
    head, tail = ader.periods[0].split(0.75)
    assert (len(head.events), len(tail.events)) == (57, 19)
    assert head.events.times_us.max() <= tail.events.times_us.min() + 60_000_000
    assert sum(len(part.events) for part in ader.periods[0].slices(7)) == 76


@pytest.fixture
def amazon(tmp_path: Path) -> Amazon:
    sequences = [[1, 2, 3, 4, 5], [2, 1, 3, 5, 6]]
    rows = [(user, place, item) for user, items in enumerate(sequences) for place, item in enumerate(items)]
    pl.DataFrame(rows, schema=["user", "pos", "item"], orient="row").write_parquet(
        tmp_path / "beauty_interactions.parquet"
    )
    items = pl.DataFrame({"item": range(1, 7), "text": ["a"] * 6, "attributes": [[7]] * 6})
    items.write_parquet(tmp_path / "beauty_items.parquet")
    return Amazon.read("beauty", tmp_path)


def test_the_last_item_is_the_test_and_nothing_of_the_last_two_is_learned(amazon: Amazon) -> None:
    assert amazon.trained_counts().tolist() == [2, 2, 2, 0, 0, 0]
    assert len(amazon.training().events) == 6
    windows, pairs = amazon.asked(1)
    assert pairs.targets_P.tolist() == [4, 5]
    # what is known at the test holds the validation item too
    assert windows.ordinals_BW[:, 3].tolist() == [3, 4]
    assert amazon.asked(2)[1].targets_P.tolist() == [3, 4]


def test_quality_counts_ranks_within_the_list() -> None:
    told = quality(np.array([1, 20, 21, 10]))
    assert (told["recall_at_20"], told["recall_at_10"]) == (75, 50)
    assert told["mrr_at_20"] == pytest.approx(100 * (1 + 1 / 20 + 1 / 10) / 4)


def _row(method: str, seed: int, period: int, recall: float, seconds: float = 1.0) -> dict[str, object]:
    ranks = dict.fromkeys(("recall_at_20", "mrr_at_20", "recall_at_10", "mrr_at_10", "ndcg_at_10"), recall)
    return {"method": method, "seed": seed, "period": period, "train_seconds": seconds, "examples": seconds, **ranks}


def test_a_method_s_row_is_the_mean_over_periods_and_then_over_seeds() -> None:
    [summary] = summarised([_row("headrace", s, p, 10.0 * s + p) for s in (1, 2) for p in (1, 2, 3)])
    assert (summary["recall_at_20"], summary["recall_at_20_spread"], summary["of_periods"]) == (17, 5, 3)


def test_an_update_is_held_to_the_retraining_of_its_own_seed_and_period() -> None:
    rows = [_row("headrace", s, p, 50.0 + s, 2.0) for s in (1, 2) for p in (7, 8)]
    rows += [_row("retrain_blended", s, 8, 51.0, 10.0 * s) for s in (1, 2)]
    bars = {bar.name: bar for bar in bars_of("diginetica", rows, {}, 8)}
    cost = bars["update's train_seconds, greatest share of retraining's"]
    assert (cost.value, cost.met) == (0.2, False)
    assert bars["R@20 against retraining, paired mean"].value == 0.5


@pytest.mark.parametrize(("loss", "goal", "met"), [(6.0, "<= 2", True), (-1.0, "<= -1", False)])
def test_forgetting_is_held_to_a_third_of_finetuning_s(loss: float, goal: str, met: bool) -> None:
    rows = [_row("headrace", 1, 1, 50.0)]
    rows += [
        {"method": method, "seed": 1, "period": 0, "gain_on_new": 4.0, "loss_on_old": lost}
        for method, lost in (("headrace", 1.5), ("finetune", loss))
    ]
    bars = {bar.name: bar for bar in bars_of("diginetica", rows, {}, 1)}
    bar = bars["loss on old periods, points; a third of finetune's"]
    assert (bar.goal, bar.met) == (goal, met)
