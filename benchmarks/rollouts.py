"""Do canaries end as they should? A shop whose people respond to what they are shown, and whose truth is known.

`python -m benchmarks.rollouts [--quick] [--seed N] --json PATH`. Real hash of the arms, real verdicts by the
policies' defaults, hourly looks; each run has a world (people, products, visits) of its own.

- *held*: canaries of 4,000 people a day at a share of 10 %, for six days: none, −10 %, −20 % of true clicks. Beside it
  what the usual tests say where there is no difference.
- *ramp*: equal and better (+5 %) releases through 1 % → 10 % → 50 %, and the exposure that the power statement names.
- *shuffled*: scores in a random order at gate 1. *increments*: 144 releases a day that change nothing, 30 days.
- *off_policy*: whether intervals hold what an unseen release truly earns; once more as gate 1 computes them, from
  impressions that the ranker's own exploration made.

Constants (mixtures, shares of alpha) were chosen on seeds 1,000 … 1,099; runs here begin at 20,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.arguments import base_parser
from benchmarks.results import Bar, Result
from benchmarks.rollouts_gate_one import RELEASES_A_DAY, Shuffled, false_stops, shuffled
from benchmarks.rollouts_logged import logged_run
from benchmarks.rollouts_off_policy import Exploration, Found, coverage, one_run
from benchmarks.rollouts_plots import draw
from benchmarks.rollouts_runs import ALPHA, POLICY, Held, Ramped, held, ramped
from benchmarks.rollouts_shop import errors_for
from headrace.trainer.analysis.non_inferiority import Side, exposure_needed
from headrace.trainer.analysis.verdict import PROMOTE

T = TypeVar("T")
Row = dict[str, object]

ACTIVE, SHARE_BP, DAYS = 4_000, 1_000, 6
RAMP_BP, RAMP_DAYS = (100, 1_000, 5_000), 14
WORSE, EQUAL, BETTER = (-0.2, -0.1), 0.0, 0.05
POWER = 0.95
LOGGED_DAYS = 3
# the suite's own defaults leave less to chance
DEFAULT_EXPLORATION = Exploration(0.02, 0.5)


@dataclass(frozen=True)
class Scale:
    """How many runs of each question, and how long the increments go on."""

    runs: int = 200
    off_policy_runs: int = 100
    increment_days: int = 30


QUICK = Scale(6, 4, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = base_parser(__doc__, "a few runs of each question: no bar means anything then", 20_000)
    parser.add_argument("--figures", type=Path, help="a folder for the figures")
    given = parser.parse_args(arguments)
    scale = QUICK if given.quick else Scale()
    errors = errors_for((*WORSE, BETTER), 999)
    with ProcessPoolExecutor() as pool:
        runs = _Runs(pool, given.seed, scale)
        rows, bars, hours = _held(runs, errors)
        for question in (_ramp, _gate_one, _off_policy):
            more_rows, more_bars = question(runs, errors)
            rows, bars = [*rows, *more_rows], [*bars, *more_bars]
    if given.figures:
        traced = held(given.seed, ACTIVE, DAYS, SHARE_BP, {one: errors[one] for one in (EQUAL, *WORSE)}, True)[0]
        draw(traced, hours, DAYS, given.figures)
    settings: Row = {"active": ACTIVE, "share_bp": SHARE_BP, "days": DAYS, "ramp_bp": RAMP_BP, "alpha": ALPHA}
    settings |= {"margin": POLICY.margins[-1], "alpha_pass": POLICY.alpha_pass, "errors": errors, "runs": scale.runs}
    seeds = [given.seed, given.seed + scale.runs - 1]
    Result("rollouts", settings, seeds, rows, bars).write(given.json)


class _Runs:
    """The same function over all seeds, on all processors."""

    def __init__(self, pool: ProcessPoolExecutor, first_seed: int, scale: Scale) -> None:
        self._pool, self._first_seed, self.scale = pool, first_seed, scale

    def of(self, run: Callable[..., T], *columns: object, count: int | None = None) -> list[T]:
        seeds = range(self._first_seed, self._first_seed + (count or self.scale.runs))
        return list(self._pool.map(run, seeds, *([column] * len(seeds) for column in columns)))


def _held(runs: _Runs, errors: dict[float, float]) -> tuple[list[Row], list[Bar], dict[float, list[float | None]]]:
    wanted = {change: errors[change] for change in (EQUAL, *WORSE)}
    by_run, alarms = zip(*runs.of(held, ACTIVE, DAYS, SHARE_BP, wanted, False), strict=True)
    hours = {change: [run[number].rolled_back_hour for run in by_run] for number, change in enumerate(wanted)}
    rows = [_held_row(change, [run[number] for run in by_run]) for number, change in enumerate(wanted)]
    for test in alarms[0]:
        false = float(np.mean([run[test] for run in alarms]))
        rows.append({"what": "naive", "test": test, "change": EQUAL, "runs": len(alarms), "false_alarms": false})
    bars = [
        Bar.at_most("A/A rolled back within 6 days", 0.05, _share_within(hours[EQUAL], DAYS)),
        Bar.at_least("-20 % rolled back within 2 days", 0.98, _share_within(hours[-0.2], 2)),
        Bar.at_least("-10 % rolled back within 6 days", 0.90, _share_within(hours[-0.1], DAYS)),
    ]
    return rows, bars, hours


def _held_row(change: float, found: Sequence[Held]) -> Row:
    hours = [one.rolled_back_hour for one in found]
    ended = [hour for hour in hours if hour is not None]
    return {
        "what": "held",
        "change": change,
        "runs": len(found),
        "rolled_back": _share_within(hours, DAYS),
        "rolled_back_in_2_days": _share_within(hours, 2),
        "median_day": round(float(np.median(ended)) / 24, 2) if ended else None,
        "last_day": round(max(ended) / 24, 2) if ended else None,
        "by_clicks": float(np.mean([one.reason.startswith(POLICY.primary) for one in found])),
    }


def _ramp(runs: _Runs, errors: dict[float, float]) -> tuple[list[Row], list[Bar]]:
    rows, bars = [], []
    wanted = {change: errors[change] for change in (EQUAL, BETTER)}
    by_run = runs.of(ramped, ACTIVE, RAMP_DAYS, RAMP_BP, wanted)
    # variance of a unit of exposure, from worlds that are not counted here
    pilot = [ramped(seed, ACTIVE, RAMP_DAYS, RAMP_BP, {EQUAL: errors[EQUAL]})[0] for seed in range(1_000, 1_010)]
    variance = float(np.mean([one.variance for one in pilot if one.variance]))
    side = Side(POLICY.alpha_pass, POLICY.pass_tightest_at)
    for number, (change, name) in enumerate(((EQUAL, "equal"), (BETTER, "better (+5 %)"))):
        needed = exposure_needed(POLICY.margins[-1], variance, side, POWER, change)
        found = [run[number] for run in by_run]
        in_time = float(np.mean([one.decision == PROMOTE and one.exposure <= needed for one in found]))
        rows.append(_ramp_row(name, change, found, needed, variance, in_time))
        bars.append(Bar.at_least(f"{name} promoted within the named exposure", 0.90, in_time))
    return rows, bars


def _ramp_row(name: str, change: float, found: Sequence[Ramped], needed: float, variance: float, in_time: float) -> Row:
    promoted = [one for one in found if one.decision == PROMOTE]
    share = RAMP_BP[-1] / 10_000
    return {
        "what": "ramp",
        "release": name,
        "change": change,
        "runs": len(found),
        "power": POWER,
        "margin": POLICY.margins[-1],
        "relative_variance": round(variance, 3),
        "exposure_named": round(needed),
        # visits of both arms together
        "visits_named": round(needed / (share * (1.0 - share))),
        "promoted_within": in_time,
        "promoted": len(promoted) / len(found),
        "rolled_back": float(np.mean([one.decision not in (PROMOTE, "") for one in found])),
        "median_exposure": round(float(np.median([one.exposure for one in promoted]))) if promoted else None,
        "median_days": round(float(np.median([one.hours for one in promoted])) / 24, 2) if promoted else None,
        "median_day_of_step": [
            round(float(np.median([one.step_hours[number] for one in found if len(one.step_hours) > number])) / 24, 2)
            for number in range(len(RAMP_BP))
        ],
        "variance_explained": round(float(np.mean([one.explained for one in promoted])), 3) if promoted else None,
    }


def _gate_one(runs: _Runs, errors: dict[float, float]) -> tuple[list[Row], list[Bar]]:
    by_run = runs.of(shuffled, ACTIVE)
    rows = [_shuffled_row([run[number] for run in by_run]) for number in range(len(by_run[0]))]
    stopped = float(np.mean([one.is_stopped for run in by_run for one in run]))
    days = runs.scale.increment_days
    stops = np.array(runs.of(false_stops, ACTIVE, days))
    a_week = float(stops.sum() / stops.size * 7)
    rows.append(
        {"what": "increments", "runs": len(stops), "days": days, "releases_a_day": RELEASES_A_DAY}
        | {"releases": int(stops.size * RELEASES_A_DAY), "false_stops": int(stops.sum()), "false_stops_a_week": a_week}
        | {"worst_month": int(stops.sum(axis=1).max())}
    )
    bars = [
        Bar.at_least("shuffled scores stopped by gate 1", 1.0, stopped),
        Bar.at_most("false stops a week at 144 releases a day", 1.0, a_week),
    ]
    return rows, bars


def _shuffled_row(found: Sequence[Shuffled]) -> Row:
    kind, requests = "increment" if found[0].is_increment else "lineage", [one.requests for one in found]
    return {
        "what": "shuffled",
        "kind": kind,
        "sees": found[0].sees,
        "runs": len(found),
        "stopped": float(np.mean([one.is_stopped for one in found])),
        "median_requests": int(np.median(requests)),
    }


def _off_policy(runs: _Runs, errors: dict[float, float]) -> tuple[list[Row], list[Bar]]:
    rows, bars = [], []
    changes = (-0.2, BETTER)
    for exploration in (Exploration(), DEFAULT_EXPLORATION):
        is_default = exploration == DEFAULT_EXPLORATION
        count = runs.scale.off_policy_runs // (4 if is_default else 1)
        wanted = [errors[change] for change in changes]
        by_run = runs.of(one_run, wanted, ACTIVE, LOGGED_DAYS, exploration, count=count)
        if not is_default:
            by_run = _together(by_run, runs.of(logged_run, wanted, ACTIVE, LOGGED_DAYS, exploration, count=count))
        for (number, change), method in product(enumerate(changes), by_run[0][0]):
            row = coverage(method, f"{change:+.0%}", [run[number][method] for run in by_run])
            rows.append(row | {"share": exploration.share, "temperature": exploration.temperature})
            if not is_default:
                name = f"{method} interval holds the truth of {change:+.0%}"
                bars.append(Bar.at_least(name, 0.90, float(str(row["coverage"]))))
    return rows, bars


def _together(by_run: list[list[Found]], more: list[list[Found]]) -> list[list[Found]]:
    return [[one | other for one, other in zip(*found, strict=True)] for found in zip(by_run, more, strict=True)]


def _share_within(hours: Iterable[float | None], days: int) -> float:
    return float(np.mean([hour is not None and hour <= 24 * days for hour in hours]))


if __name__ == "__main__":
    main()
