"""Does learning as events come keep up with training again from nothing, at a fraction of its cost?

ADER's protocol (benchmarks/ader.py) on DIGINETICA (weeks) or YOOCHOOSE (days), with the trainer's own learner.
`python -m benchmarks.continual --data diginetica|yoochoose [--folder FOLDER] [--seeds N] [--seed N]
[--processes N] [--quick] [--plots FOLDER] --json PATH`.
Finished parts are kept beside PATH (`PATH.parts`) and not run again.

Methods, each over the same test clicks:
- counts: co-visitation, own choices and popularity as the blend weighs them, no tower
- static: the towers learn period 0 and no more; finetune: each period alone, nothing replayed
- replay: the towers, each period beside some of the old ones; headrace: the same blended with the counts
- retrain: fresh towers over all periods so far but the newest twentieth of the last; retrain_blended: blended with
  the same counts by what headrace had learned of blending until then, and goes on learning from that twentieth
- distil: replay that is also held to what the towers said before
- weekly, hourly: headrace over two periods, each tested whole before it is learned, or in 168 parts (24 of a day),
  each tested and learned in turn; on every click from the second on, new items too (`new_…`: items that no earlier
  period has, which the published protocol drops). There is no content here: a new item has nothing to be known by
  before its first click.

recall_at_20 … are percentages, means over clicks, then over periods. train_seconds are CPU seconds on one thread;
examples are (what was seen, what followed) pairs that were learned from.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ader import LAST_TUNING, Ader
from benchmarks.continual_plots import draw
from benchmarks.results import Bar, Result
from benchmarks.seeds import number
from benchmarks.units import Row, Unit, parser_of, required_folder, run_units
from headrace.trainer.forecast import Outcomes
from headrace.trainer.learner import Learned, Learner
from headrace.trainer.records import Slice
from headrace.trainer.sequences import Windows, pairs_of
from headrace.trainer.settings import TrainerSettings

PASSES, FIRST_PASSES, EPOCHS = 3, 12, 12
SETTINGS: Mapping[str, object] = {
    "dropout": 0.2,
    "input_dropout": 0.3,
    "habit": False,
    "reversed_share": 0.5,
    "uniform_negatives": 2048,
    "dense_rate": 1.5e-3,
    "row_rate": 0.01,
    "passes": PASSES,
    "replay_share": 0.8,
    "replay_windows": 400_000,
    "evaluated_people": 0,
    "evaluated_states": 4096,
}
# what ways to learn set otherwise
CHANGES: Mapping[str, Mapping[str, object]] = {
    "finetune": {"replay_share": 0.0, "least_replay": 0},
    "distil": {"distillation": 1.0},
    # over more passes, more is better left out
    "retrain": {"dropout": 0.3},
}
# sessions of each period by which forgetting is told, at most
GAUGED = 1_000
_HOURS = {"diginetica": 168, "yoochoose": 24}
# recall@20 in percent by method, of held-out sessions or learned ones
Recalls = dict[tuple[str, bool], float]
_FREE: Row = {"train_seconds": 0, "examples": 0}
# of a period, when the newest part is kept for the blend alone
_HEAD = 0.95
_SESSIONS_AT_ONCE = 2_000
_TUNED_ON = f"periods 1..{LAST_TUNING}"
_PUBLISHED = {"diginetica": "DIGINETICA", "yoochoose": "YOOCHOOSE"}


def learner_of(method: str, seed: int) -> Learner:
    changes = dict(SETTINGS) | dict(CHANGES.get(method, {})) | {"seed": seed}
    return Learner(TrainerSettings(**changes))  # type: ignore[arg-type]


def measured(unit: Unit, name: str, folder: Path, last: int, blends: Path) -> list[Row]:
    """The rows of one unit; runs in a process of its own."""
    torch.set_num_threads(1)
    data = Ader.read(name, folder / "ader")
    if unit.method == "hourly":
        rows = _hourly(data, unit, last)
    else:
        rows = _retrained(data, unit, blends) if unit.period else _incremental(data, unit, last, blends)
    return [{"data": name, "seed": unit.seed} | row for row in rows]


def _incremental(data: Ader, unit: Unit, last: int, blends: Path) -> Iterator[Row]:
    learner, gauge = learner_of(unit.method, unit.seed), Gauge(data, unit.method)
    for period in range(1, last + 1):
        is_learned = period == 1 or unit.method != "static"
        seconds, examples = _update(learner, data, period) if is_learned else (0.0, 0)
        cost: Row = {"train_seconds": round(seconds, 1), "examples": examples}
        if unit.method == "headrace":
            np.savez(_blend_path(blends, unit.seed, period), **learner.forecaster.arrays())
        gauge.note_learned(learner, period - 1)
        windows, known = data.test_windows(period)
        outcomes = foreseen(learner, windows, known)
        gauge.note_fresh(learner, period)
        for method, ranks in _reported(unit.method, outcomes):
            # counts are no part of the training
            yield {"method": method, "period": period} | quality(ranks) | (_FREE if method == "counts" else cost)
    yield from gauge.forgetting(learner, last)


def _hourly(data: Ader, unit: Unit, last: int) -> Iterator[Row]:
    first = max(2, min(last - 1, LAST_TUNING + 1))
    begun = learner_of("headrace", unit.seed)
    for period in range(1, first + 1):
        _update(begun, data, period)
    state = {name: array.copy() for name, array in begun.arrays().items()}
    for method, parts in (("weekly", 1), ("hourly", _HOURS[data.name])):
        learner = learner_of("headrace", unit.seed)
        learner.restore(state)
        for period in range(first, first + 2):
            yield {"method": method, "period": period} | _tested_then_learned(learner, data, period, parts)


def _tested_then_learned(learner: Learner, data: Ader, period: int, parts: int) -> Row:
    begun = time.process_time()
    slices = [_learned(learner, records, period) for records in data.periods[period].slices(parts)]
    cost: Row = {
        "train_seconds": round(time.process_time() - begun, 1),
        "examples": sum(learned.examples for learned in slices),
    }
    outcomes = Outcomes.joined([replace(told.outcomes, lists=None) for told in slices if told.outcomes is not None])
    is_new = outcomes.targets_P >= data.known_before(period)
    new = {f"new_{name}": value for name, value in quality(outcomes.ranks_P[is_new]).items()}
    return quality(outcomes.ranks_P) | new | cost


def _learned(learner: Learner, records: Slice, number: int, passes: int | None = None) -> Learned:
    learned = learner.learn(records, number, passes)
    learner.sent.note(learned.deltas)
    return learned


def _update(learner: Learner, data: Ader, period: int) -> tuple[float, int]:
    """CPU seconds and examples. Of the first of all periods the newest part is tested before it is learned."""
    begun = time.process_time()
    if period == 1:
        head, tail = data.periods[0].split(_HEAD)
        learned = [_learned(learner, head, 0, FIRST_PASSES), _learned(learner, tail, 1)]
    else:
        learned = [_learned(learner, records, period) for records in data.periods[period - 1].slices(1)]
    return time.process_time() - begun, sum(slice_.examples for slice_ in learned)


def _retrained(data: Ader, unit: Unit, blends: Path) -> Iterator[Row]:
    """Fresh towers over everything but the newest period's last part, by which the blend is brought up to them."""
    learner = learner_of("retrain", unit.seed)
    begun = time.process_time()
    head, tail = data.periods[unit.period - 1].split(_HEAD)
    older = [records for period in data.periods[: unit.period - 1] for records in period.slices(1)]
    windows = Windows.concatenated([learner.gather(records) for records in [*older, head]])
    examples = sum(learned.examples for learned in learner.retrain(windows, EPOCHS))
    with np.load(_blend_path(blends, unit.seed, unit.period)) as blend:
        learner.forecaster.restore(blend)
    learner.gather(tail, is_tested=True)
    cost: Row = {"train_seconds": round(time.process_time() - begun, 1), "examples": examples}
    test, known = data.test_windows(unit.period)
    outcomes = foreseen(learner, test, known)
    for method, ranks in (("retrain", outcomes.vector_ranks_P), ("retrain_blended", outcomes.ranks_P)):
        yield {"method": method, "period": unit.period} | quality(ranks) | cost


def _blend_path(blends: Path, seed: int, period: int) -> Path:
    return blends / f"blend-{seed}-{period}.npz"


def _reported(method: str, outcomes: Outcomes) -> Iterator[tuple[str, NDArray[np.int64]]]:
    if method == "headrace":
        yield "counts", outcomes.counted_ranks_P
        yield "replay", outcomes.vector_ranks_P
        yield "headrace", outcomes.ranks_P
    else:
        yield method, outcomes.vector_ranks_P


def foreseen(learner: Learner, windows: Windows, known: int) -> Outcomes:
    learner.know(known)
    parts = []
    for start in range(0, len(windows), _SESSIONS_AT_ONCE):
        part = windows.at(np.arange(start, min(start + _SESSIONS_AT_ONCE, len(windows))))
        parts.append(learner.foresee(part, pairs_of(part).followed(), known))
    return Outcomes.joined(parts)


def quality(ranks: NDArray[np.int64]) -> Row:
    """Percentages over clicks."""
    gains = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
    return {
        "recall_at_20": 100 * float((ranks <= 20).mean()),
        "mrr_at_20": 100 * float(np.where(ranks <= 20, 1 / ranks, 0).mean()),
        "recall_at_10": 100 * float((ranks <= 10).mean()),
        "mrr_at_10": 100 * float(np.where(ranks <= 10, 1 / ranks, 0).mean()),
        "ndcg_at_10": 100 * float(gains.mean()),
        "clicks": len(ranks),
    }


class Gauge:
    """What each method recalls of each period before it was learned, just after, and at the end.

    Told of sessions that were held out (`_on_new`, `_on_old`), and of a sample of those that were learned.
    """

    def __init__(self, data: Ader, method: str) -> None:
        self._data = data
        self._method = method
        self._fresh: dict[int, Recalls] = {}
        self._learned: dict[int, Recalls] = {}

    def note_fresh(self, learner: Learner, period: int) -> None:
        self._fresh[period] = self._recalls(learner, period)

    def note_learned(self, learner: Learner, period: int) -> None:
        if period:
            self._learned[period] = self._recalls(learner, period)

    def forgetting(self, learner: Learner, last: int) -> Iterator[Row]:
        """Points of recall@20: gained on a period by learning it, and lost again by the end, over all but the last."""
        periods = [period for period in self._learned if period < last]
        ends = {period: self._recalls(learner, period) for period in periods}
        for method in dict.fromkeys(method for method, _ in next(iter(ends.values()), {})):
            row: Row = {"method": method, "period": 0}
            for held_out, kind in ((True, ""), (False, "_learned")):
                key = method, held_out
                gains = [self._learned[period][key] - self._fresh[period][key] for period in periods]
                losses = [self._learned[period][key] - ends[period][key] for period in periods]
                row |= {f"gain_on_new{kind}": float(np.mean(gains)), f"loss_on_old{kind}": float(np.mean(losses))}
            yield row

    def _recalls(self, learner: Learner, period: int) -> Recalls:
        found = {}
        for held_out in (True, False):
            windows, known = self._data.test_windows(period, held_out)
            chosen = np.random.default_rng(period).permutation(len(windows))[:GAUGED]
            outcomes = foreseen(learner, windows.at(np.sort(chosen)), known)
            for method, ranks in _reported(self._method, outcomes):
                found[method, held_out] = 100 * float((ranks <= 20).mean())
        return found


def units_of(seeds: Sequence[int], methods: Sequence[str], retrained: Iterable[int]) -> tuple[list[Unit], list[Unit]]:
    """The parts of the work that need nothing, and then those that need what headrace leaves."""
    alone = [Unit(method, seed) for method in methods if method != "retrain" for seed in seeds]
    rivals = [Unit("retrain", seed, period) for period in sorted(retrained, reverse=True) for seed in seeds]
    return alone, rivals if "retrain" in methods else []


def summarised(rows: Sequence[Row]) -> list[Row]:
    """A row a method: means over periods, then over seeds, with the spread over seeds."""
    by_method: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["period"]:
            by_method[str(row["method"])][int(str(row["seed"]))].append(row)
    return [_summary(method, seeds) for method, seeds in by_method.items()]


_MEASURES = ("recall_at_20", "mrr_at_20", "recall_at_10", "mrr_at_10", "ndcg_at_10")


def _summary(method: str, seeds: Mapping[int, Sequence[Row]]) -> Row:
    periods = sorted({int(str(row["period"])) for rows in seeds.values() for row in rows})
    summary: Row = {"method": method, "periods": f"{periods[0]}..{periods[-1]}", "of_periods": len(periods)}
    for name in _MEASURES:
        means = [float(np.mean([number(row, name) for row in rows])) for rows in seeds.values()]
        summary |= {name: round(float(np.mean(means)), 3), f"{name}_spread": round(float(np.std(means)), 3)}
    late = [[row for row in rows if number(row, "period") > LAST_TUNING] for rows in seeds.values()]
    if all(late):
        summary["recall_at_20_held_out"] = round(_mean(row for rows in late for row in rows), 3)
    for name in ("train_seconds", "examples"):
        summary[name] = round(float(np.mean([sum(number(row, name) for row in rows) for rows in seeds.values()])), 1)
    return summary


def _mean(rows: Iterable[Row], name: str = "recall_at_20") -> float:
    return float(np.mean([number(row, name) for row in rows]))


def bars_of(name: str, rows: Sequence[Row], published: Mapping[str, Sequence[float]], last: int) -> list[Bar]:
    ours = [row for row in rows if row["method"] == "headrace" and row["period"]]
    recall, reciprocal = _mean(ours), _mean(ours, "mrr_at_20")
    if name == "diginetica":
        bars = [Bar.at_least("R@20, mean of periods", 53.0, recall), Bar.at_least("MRR@20", 19.3, reciprocal)]
    else:
        best = {
            m: max(_published(published, name, m, rival, last) for rival in ("ADER", "Joint")) for m in _RIVAL_MEASURES
        }
        bars = [
            Bar.at_least("R@20, best published + 0.5", round(best["Recall@20"] + 0.5, 2), recall),
            Bar.at_least("MRR@20, best published", round(best["MRR@20"], 2), reciprocal),
        ]
    return bars + _cost_bars(rows) + _forgetting_bars(rows)


_RIVAL_MEASURES = ("Recall@20", "MRR@20")


def _published(published: Mapping[str, Sequence[float]], name: str, measure: str, rival: str, last: int) -> float:
    return float(np.mean(published[f"{_PUBLISHED[name]}|{measure}|{rival}"][:last]))


def _cost_bars(rows: Sequence[Row]) -> list[Bar]:
    rivals = {(row["seed"], row["period"]): row for row in rows if row["method"] == "retrain_blended"}
    ours = {(row["seed"], row["period"]): row for row in rows if row["method"] == "headrace" and row["period"]}
    paired = [(ours[key], rival) for key, rival in rivals.items() if key in ours]
    if not paired:
        return []
    shares = {name: [number(our, name) / number(rival, name) for our, rival in paired] for name in _COSTS}
    gaps = [number(our, "recall_at_20") - number(rival, "recall_at_20") for our, rival in paired]
    return [
        *(Bar.at_most(f"update's {name}, greatest share of retraining's", 0.1, max(shares[name])) for name in _COSTS),
        Bar.at_least("R@20 against retraining, paired mean", 0.0, float(np.mean(gaps))),
    ]


_COSTS = ("train_seconds", "examples")


def _forgetting_bars(rows: Sequence[Row]) -> list[Bar]:
    methods = ("headrace", "finetune")
    told = {method: [r for r in rows if r["method"] == method and "loss_on_old" in r] for method in methods}
    if not all(told.values()):
        return []
    loss, gain = ({m: _mean(told[m], name) for m in told} for name in ("loss_on_old", "gain_on_new"))
    # where finetune forgets nothing, a third of its loss would ask for less
    allowed = loss["finetune"] / 3 if loss["finetune"] > 0 else loss["finetune"]
    return [
        Bar.at_most("loss on old periods, points; a third of finetune's", round(allowed, 3), loss["headrace"]),
        Bar.at_least("gain on new periods, share of finetune's", 0.95, gain["headrace"] / gain["finetune"]),
    ]


def main() -> None:
    parser = parser_of(__doc__, list(_PUBLISHED))
    parser.add_argument("--methods", default="headrace,retrain,finetune,static,distil,hourly")
    parser.add_argument("--retrained", default="8,12,16", help="periods before which all is trained anew")
    arguments = parser.parse_args()
    folder = required_folder(arguments.folder)
    published = json.loads((folder / "ader" / "published_per_period.json").read_text())
    last = 2 if arguments.quick else len(Ader.read(arguments.data, folder / "ader").periods) - 1
    seeds = [arguments.seed + number for number in range(1 if arguments.quick else arguments.seeds)]
    retrained = [] if arguments.quick else [int(text) for text in arguments.retrained.split(",") if int(text) <= last]
    parts, blends = arguments.json.with_suffix(".parts"), arguments.json.with_suffix(".blends")
    blends.mkdir(parents=True, exist_ok=True)
    # retraining takes up the blends that headrace leaves
    extra = (arguments.data, folder, last, blends)
    first, second = units_of(seeds, arguments.methods.split(","), retrained)
    rows = [row for units in (first, second) for row in run_units(units, measured, extra, parts, arguments.processes)]
    Result(
        f"continual_{arguments.data}",
        {
            **SETTINGS,
            **CHANGES,
            "first_passes": FIRST_PASSES,
            "epochs": EPOCHS,
            "tuned_on": f"periods 1..{LAST_TUNING}",
        },
        seeds,
        [*({"data": arguments.data} | row for row in summarised(rows)), *rows],
        bars_of(arguments.data, rows, published, last),
    ).write(arguments.json)
    if arguments.plots:
        draw(arguments.data, rows, published, arguments.plots)


if __name__ == "__main__":
    main()
