"""Visits that are not over: what was shown in them and what came of it, person by person.

A visit opens with a list shown and lasts `visit_s`; lists within it belong to it. An event that names its answer counts
for the visit of that answer, one that names none for the latest visit that showed the product; either within the
metric's window of the list, and the same product once a visit and metric. A visit is over when no event can count for
it any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from headrace.trainer.analysis.policy import Metric

_MOST_ITEMS = 500


@dataclass(slots=True)
class Visit:
    """`arm`: 0 stable, 1 canary, −1 outside a rollout. `step`: which step's it is. `counted`: (metric, item) pairs."""

    person: int
    open_us: int
    step: int
    arm: int
    predicted: float = 0.0
    shown_us: dict[int, int] = field(default_factory=dict)
    counted: list[tuple[int, int]] = field(default_factory=list)
    # the products whose probability of a click was told
    told: set[int] = field(default_factory=set)
    # those that were shown in it
    answers: set[str] = field(default_factory=set)

    def outcomes(self, metrics: Sequence[Metric]) -> list[float]:
        """By metric, what the visit counts, and one visit where visits are what is counted."""
        found = [0.0 if metric.event_types else 1.0 for metric in metrics]
        for metric, _ in self.counted:
            found[metric] += 1.0
        return [
            min(value, metric.cap) if metric.per == "visit" else value
            for value, metric in zip(found, metrics, strict=True)
        ]

    def clicked(self, metric: int) -> float:
        return float(sum(item in self.told for counted, item in self.counted if counted == metric))


class OpenVisits:
    """Visits in the order in which they opened."""

    def __init__(self, metrics: Sequence[Metric], visit_s: float) -> None:
        self._metrics = metrics
        self._visit_us = int(visit_s * 1e6)
        self._windows_us = [int(metric.window_s * 1e6) for metric in metrics]
        self._over_us = self._visit_us + max(self._windows_us)
        self._queue: deque[Visit] = deque()
        self._of: dict[int, list[Visit]] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def showing(self, time_us: int, person: int, step: int, arm: int) -> Visit:
        """The visit that a list shown now belongs to."""
        found = self._of.get(person)
        if found and time_us < found[-1].open_us + self._visit_us and found[-1].step == step:
            return found[-1]
        visit = Visit(person, time_us, step, arm)
        self._queue.append(visit)
        self._of.setdefault(person, []).append(visit)
        return visit

    def show(
        self, visit: Visit, time_us: int, items: Sequence[int], probabilities: Sequence[float], answer: str
    ) -> None:
        if answer:
            visit.answers.add(answer)
        for item in items[: max(0, _MOST_ITEMS - len(visit.shown_us))]:
            visit.shown_us[item] = time_us
        for item, probability in zip(items, probabilities, strict=False):
            if item not in visit.told and item in visit.shown_us:
                visit.told.add(item)
                visit.predicted += probability

    def act(self, time_us: int, person: int, event_type: str, items: Iterable[int], answer: str) -> None:
        """Counts an event where it belongs; most belong nowhere."""
        visits = [visit for visit in self._of.get(person, ()) if not answer or answer in visit.answers]
        kinds = [number for number, metric in enumerate(self._metrics) if event_type in metric.event_types]
        if not visits or not kinds:
            return
        for item in set(items):
            visit = next((visit for visit in reversed(visits) if item in visit.shown_us), None)
            if visit is None:
                continue
            since_us = time_us - visit.shown_us[item]
            for kind in kinds:
                if 0 <= since_us <= self._windows_us[kind] and (kind, item) not in visit.counted:
                    visit.counted.append((kind, item))

    def over(self, now_us: int) -> Iterator[Visit]:
        """Takes out the visits that are over."""
        while self._queue and self._queue[0].open_us + self._over_us < now_us:
            visit = self._queue.popleft()
            # the oldest of a person's is the first of theirs
            mine = self._of[visit.person]
            mine.pop(0)
            if not mine:
                del self._of[visit.person]
            yield visit

    def forget(self, people: frozenset[int]) -> None:
        self._restore(visit for visit in self._queue if visit.person not in people)

    def state(self) -> list[dict[str, Any]]:
        """JSON of the visits; `restored` takes it."""
        return [
            asdict(visit)
            | {
                "told": sorted(visit.told),
                "answers": sorted(visit.answers),
                "shown_us": [list(pair) for pair in visit.shown_us.items()],
            }
            for visit in self._queue
        ]

    def restore(self, state: Iterable[dict[str, Any]]) -> None:
        self._restore(
            Visit(**visit | {
                "told": set(visit["told"]),
                "answers": set(visit["answers"]),
                "shown_us": {int(item): int(time) for item, time in visit["shown_us"]},
                "counted": [(int(kind), int(item)) for kind, item in visit["counted"]],
            })
            for visit in state
        )  # fmt: skip

    def _restore(self, visits: Iterable[Visit]) -> None:
        self._queue = deque(visits)
        self._of = {}
        for visit in self._queue:
            self._of.setdefault(visit.person, []).append(visit)
