"""How well does the sequence model rank, beside the published ones, with and without knowing items' content?

Amazon Beauty and Sports, leave-one-out, full ranking (benchmarks/amazon.py), the trainer's own towers trained from
nothing. `python -m benchmarks.sequential --data beauty|sports [--folder FOLDER] [--seeds N] [--seed N]
[--processes N] [--quick] [--plots FOLDER] --json PATH`.
Finished parts are kept beside PATH (`PATH.parts`) and not run again.

Methods: headrace (towers with content, blended with counts), towers (alone), and the same with items known by
nothing but their ids; counts. The blend's weights are learned from the validation items; nothing trains on those.
cold_*: users whose test item nobody has in training. rare_*: at most three times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.amazon import Amazon
from benchmarks.results import Bar, Result
from benchmarks.seeds import means, spread_over_seeds
from benchmarks.sequential_plots import draw
from benchmarks.units import Row, Unit, parser_of, required_folder, run_units
from headrace.model.text.encoder import TextEncoder
from headrace.trainer.forecast import Outcomes
from headrace.trainer.learner import Learner
from headrace.trainer.sequences import Pairs, Windows
from headrace.trainer.settings import TrainerSettings

EPOCHS = 60
SETTINGS: Mapping[str, object] = {
    "dropout": 0.3,
    "input_dropout": 0.3,
    "habit": False,
    "reversed_share": 0.5,
    # the files hold no times: what goes together does not get old
    "covisitation_half_life_days": 3650.0,
    "own_dropout": 0.2,
    "temperature": 6.0,
    "evaluated_places": 300,
    "uniform_negatives": 1024,
    "batch_targets": 512,
    "dense_rate": 1.5e-3,
    "row_rate": 5e-3,
    "evaluated_people": 0,
}
_USERS_AT_ONCE = 2_048
# times that the validation items teach the blend
_LESSONS = 2
_RARE = 3
_PUBLISHED: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "beauty": {
        "SASRec": (0.0605, 0.0318),
        "TIGER": (0.0648, 0.0384),
        "HSTU": (0.0788, 0.0439),
        "ActionPiece": (0.0775, 0.0424),
        "SASRec + sampled softmax": (0.0921, 0.0531),
        "eSASRec": (0.0928, 0.0523),
    },
    "sports": {
        "SASRec": (0.0350, 0.0192),
        "TIGER": (0.0400, 0.0225),
        "HSTU": (0.0437, 0.0243),
        "ActionPiece": (0.0500, 0.0264),
        "SASRec + sampled softmax": (0.0569, 0.0314),
        "eSASRec": (0.0560, 0.0323),
    },
}


def measured(unit: Unit, name: str, folder: Path, epochs: int) -> list[Row]:
    """The rows of one training; runs in a process of its own."""
    torch.set_num_threads(1)
    data = Amazon.read(name, folder / "amazon14")
    learner = _learner(data, unit)
    windows = learner.gather(data.training())
    begun = time.process_time()
    examples = sum(learned.examples for learned in learner.retrain(windows, epochs))
    cost = {"train_seconds": round(time.process_time() - begun, 1), "examples": examples}
    lesson, _ = foreseen(learner, data, 2, is_lesson=True)
    for _ in range(_LESSONS):
        learner.weigh_sources(lesson)
    outcomes, targets = foreseen(learner, data, 1)
    return [
        {"data": name, "method": method, "seed": unit.seed} | _sliced(ranks, data.trained_counts()[targets]) | cost
        for method, ranks in _reported(unit.method, outcomes)
    ]


def _learner(data: Amazon, unit: Unit) -> Learner:
    learner = Learner(TrainerSettings(**SETTINGS, seed=unit.seed), _encoder(unit.method))  # type: ignore[arg-type]
    if unit.method == "ids":
        learner.know(data.items)
    else:
        learner.sent.note(learner.learn_products(data.products))
    return learner


def _encoder(method: str) -> TextEncoder | None:
    if method != "minilm":
        return None
    from headrace.model.text.pretrained import Pretrained

    return Pretrained().encoder()


def _reported(method: str, outcomes: Outcomes) -> Iterator[tuple[str, NDArray[np.int64]]]:
    names = {"content": ("headrace", "towers"), "minilm": ("headrace minilm", "towers minilm")}
    blended, alone = names.get(method, ("headrace ids", "towers ids"))
    yield blended, outcomes.ranks_P
    yield alone, outcomes.vector_ranks_P
    if method == "ids":
        yield "counts", outcomes.counted_ranks_P


def foreseen(learner: Learner, data: Amazon, back: int, is_lesson: bool = False) -> tuple[Outcomes, NDArray[np.int64]]:
    """The outcomes of every user's last item (`back` 1) or the one before (2), and the items."""
    windows, pairs = data.asked(back)
    parts = []
    for start in range(0, len(windows), _USERS_AT_ONCE):
        part, own = _users(windows, pairs, np.arange(start, min(start + _USERS_AT_ONCE, len(windows))))
        parts.append(learner.foresee(part, own, data.items, is_new_only=True, is_lesson=is_lesson))
    return Outcomes.joined(parts), pairs.targets_P


def _users(windows: Windows, pairs: Pairs, chosen: NDArray[np.int64]) -> tuple[Windows, Pairs]:
    own = pairs.at(chosen)
    return windows.at(chosen), Pairs(own.rows_P - chosen[0], own.states_P, own.targets_P, own.waits_P, own.is_next_P)


def _sliced(ranks: NDArray[np.int64], trained: NDArray[np.int64]) -> Row:
    row = _quality("", ranks)
    for name, chosen in (("cold_", trained == 0), ("rare_", trained <= _RARE)):
        row |= _quality(name, ranks[chosen]) | {f"{name}users": int(chosen.sum())}
    return row


def _quality(prefix: str, ranks: NDArray[np.int64]) -> Row:
    found: Row = {f"{prefix}recall_at_{k}": float((ranks <= k).mean()) for k in (5, 10, 20, 100)}
    for k in (5, 10):
        found[f"{prefix}ndcg_at_{k}"] = float(np.where(ranks <= k, 1 / np.log2(ranks + 1), 0).mean())
    found[f"{prefix}mrr_at_20"] = float(np.where(ranks <= 20, 1 / ranks, 0).mean())
    return found


def summarised(rows: Sequence[Row]) -> list[Row]:
    """A row a method: means over seeds, and the spread of the main measures."""
    methods = dict.fromkeys(str(row["method"]) for row in rows)
    return [spread_over_seeds(method, [row for row in rows if row["method"] == method]) for method in methods]


_GOALS = {
    "beauty": {"headrace": (0.1020, 0.0590), "headrace ids": (0.0931, 0.0572)},
    "sports": {"headrace": (0.0610, 0.0345)},
}


def bars_of(name: str, rows: Sequence[Row]) -> list[Bar]:
    bars = []
    for method, (recall, ndcg) in _GOALS[name].items():
        found = means([row for row in rows if row["method"] == method])
        bars += [
            Bar.at_least(f"{method}: R@10", recall, round(found["recall_at_10"], 4)),
            Bar.at_least(f"{method}: N@10", ndcg, round(found["ndcg_at_10"], 4)),
        ]
    if name == "beauty":
        cold = means([row for row in rows if row["method"] == "headrace"])["cold_recall_at_100"]
        bars.append(Bar.at_least("headrace, cold items: R@100", 0.25, round(cold, 4)))
    return bars


def _published_rows(name: str) -> list[Row]:
    return [
        {"data": name, "method": f"{method} (published)", "recall_at_10": recall, "ndcg_at_10": ndcg}
        for method, (recall, ndcg) in _PUBLISHED[name].items()
    ]


def main() -> None:
    parser = parser_of(__doc__, list(_PUBLISHED))
    parser.add_argument("--text", choices=("ngrams", "minilm"), default="ngrams", help="minilm: the pre-trained too")
    arguments = parser.parse_args()
    folder = required_folder(arguments.folder)
    seeds = [arguments.seed + number for number in range(1 if arguments.quick else arguments.seeds)]
    methods = ("content", "ids") if arguments.text == "ngrams" else ("content", "ids", "minilm")
    units = [Unit(method, seed) for method in methods for seed in seeds]
    extra = (arguments.data, folder, 2 if arguments.quick else EPOCHS)
    rows = run_units(units, measured, extra, arguments.json.with_suffix(".parts"), arguments.processes)
    summary = [{"data": arguments.data} | row for row in summarised(rows)]
    Result(
        f"sequential_{arguments.data}",
        {**SETTINGS, "epochs": EPOCHS, "tuned_on": "validation items"},
        seeds,
        [*summary, *_published_rows(arguments.data), *rows],
        bars_of(arguments.data, rows),
    ).write(arguments.json)
    if arguments.plots:
        draw(arguments.data, [*summary, *_published_rows(arguments.data)], arguments.plots)


if __name__ == "__main__":
    main()
