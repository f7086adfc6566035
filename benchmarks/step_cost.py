"""What does one slice of a live stream cost the learner, and how much memory does it hold?

`python -m benchmarks.step_cost [--quick] [--seed N] --json PATH`. The trainer's learner at its default settings on one
thread: 50,000 described products, then slices of 1,000 views by people who come and come back; each slice is tested,
learned, and its deltas taken out, as the trainer does. Times are CPU seconds of this process; memory is its peak.
There is no rival: the goals are 2 seconds a slice and 1.5 GiB.
"""

from __future__ import annotations

import resource
import time

from headrace.runtime.threads import limit_threads

limit_threads()

import numpy as np  # noqa: E402  # after the number of threads is set
import torch  # noqa: E402

from benchmarks.arguments import base_parser  # noqa: E402
from benchmarks.results import Bar, Result  # noqa: E402
from headrace.model.events import EventCode  # noqa: E402
from headrace.trainer.learner import Learner  # noqa: E402
from headrace.trainer.records import Events, Product, Slice  # noqa: E402
from headrace.trainer.settings import TrainerSettings  # noqa: E402

ITEMS, EVENTS, PEOPLE = 50_000, 1_000, 20_000
_START_US = 1_700_000_000_000_000
_SLICE_US = 5_000_000
_WORDS = ("red", "blue", "oak", "steel", "cotton", "lamp", "chair", "mug", "scarf", "knife", "kettle", "rug")


def products(count: int, rng: np.random.Generator) -> list[Product]:
    """Titles of four words and a number."""
    words = rng.choice(_WORDS, (count, 4))
    return [
        Product(at, at, f"{' '.join(row)} {at}", f"brand {at % 400}", f"home > part {at % 60}", 5.0 + at % 90, False)
        for at, row in enumerate(words)
    ]


def slice_of_views(number: int, events: int, items: int, rng: np.random.Generator) -> Slice:
    """Views of items that are chosen by a Zipf law, by people of whom some come back."""
    ordinals = np.minimum(rng.zipf(1.2, events) - 1, items - 1)
    present = rng.integers(0, PEOPLE, events // 4)
    people, users = np.unique(rng.choice(present, events), return_inverse=True)
    times = _START_US + number * _SLICE_US + np.arange(events) * (_SLICE_US // events)
    columns = (
        users,
        ((ordinals * 7_919) % items).astype(np.uint32),
        np.full(events, EventCode.VIEW, np.uint8),
        times,
        np.ones(events, np.uint8),
    )
    return Slice(0, events, Events(*columns, tuple(f"u:{person}" for person in people), ("",) * events))


def measured(slices: int, seed: int) -> dict[str, float]:
    torch.set_num_threads(1)
    rng, learner = np.random.default_rng(seed), Learner(TrainerSettings(seed=seed))
    begun = time.process_time()
    learner.sent.note(learner.learn_products(products(ITEMS, rng)))
    catalogue_s = time.process_time() - begun
    seconds: list[float] = []
    deltas = 0
    for number in range(slices):
        records = slice_of_views(number, EVENTS, ITEMS, rng)
        begun = time.process_time()
        learned = learner.learn(records, number)
        learner.sent.note(learned.deltas)
        seconds.append(time.process_time() - begun)
        deltas += len(learned.deltas)
    return {
        "slice_s_p50": round(float(np.median(seconds)), 3),
        "slice_s_max": round(max(seconds), 3),
        "catalogue_s": round(catalogue_s, 2),
        "deltas_per_slice": round(deltas / slices, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }


def main() -> None:
    parser = base_parser(__doc__, quick="5 slices instead of 60")
    arguments = parser.parse_args()
    slices = 5 if arguments.quick else 60
    row = measured(slices, arguments.seed)
    bars = [
        Bar.at_most("slice of 1,000 events at 50,000 items, slowest, CPU s", 2.0, row["slice_s_max"]),
        Bar.at_most("peak memory, GiB", 1.5, row["peak_gib"]),
    ]
    settings = {"items": ITEMS, "events": EVENTS, "slices": slices}
    Result("step_cost", settings, [arguments.seed], [{"data": "made", "method": "headrace"} | row], bars).write(
        arguments.json
    )


if __name__ == "__main__":
    main()
