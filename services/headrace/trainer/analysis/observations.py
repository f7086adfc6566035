"""The fold of lists shown and events into what a canary's verdict needs of either arm.

Everybody's visits are folded, in a rollout or not: what people did before a step begins is what they are compared by
beside (CUPED). Within a step a person is in the arm of the first list that they were shown (intention to treat: also
when stable answered in the canary's place), and who was shown nothing is in none. Visits count when they are over, so
both arms' are equally complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from headrace.model.arms import CANARY
from headrace.trainer.analysis.evidence import MetricEvidence
from headrace.trainer.analysis.people import People
from headrace.trainer.analysis.policy import METRICS, Metric
from headrace.trainer.analysis.visits import OpenVisits, Visit


@dataclass(frozen=True, slots=True)
class ArmSeen:
    """Of an arm since the step began: people who were shown something, predicted and observed clicks."""

    people: int
    predicted: float
    clicked: float


@dataclass(frozen=True, slots=True)
class Observed:
    """What goes into a CanaryEvidence."""

    metrics: tuple[MetricEvidence, ...]
    stable: ArmSeen
    canary: ArmSeen


class Observations:
    """`offset`: the log offset up to which the caller has folded; kept with the state.

    People are numbers (keyed hashes of the key first seen). Times are microseconds of the log; they may step back.

    >>> watching = Observations()
    >>> watching.begin("ro-000001", 0)
    >>> watching.shown(1, 7, "ro-000001", "canary", [3, 4])
    >>> watching.acted(2, 7, "detail-page-view", [4])
    >>> watching.evidence(4_000_000_000).metrics[0].canary.sums[:2]
    (1.0, 1.0)
    """

    def __init__(
        self, metrics: Sequence[Metric] = METRICS, visit_s: float = 1_800.0, most_people: int = 1_000_000
    ) -> None:
        self._metrics = tuple(metrics)
        self._people = People(self._metrics, most_people)
        self._visits = OpenVisits(self._metrics, visit_s)
        self._now_us = self._began_us = 0
        self._rollout, self._step = "", 0
        self._predicted, self._clicked = [0.0, 0.0], [0.0, 0.0]
        self.offset = 0

    def begin(self, rollout: str, time_us: int) -> None:
        """A step of `rollout` begins, or, with an empty name, none runs any more."""
        self._close(time_us)
        self._people.begin(time_us - self._began_us if self._began_us else 0)
        self._rollout, self._step, self._began_us = rollout, self._step + 1, time_us
        self._predicted, self._clicked = [0.0, 0.0], [0.0, 0.0]

    def shown(
        self,
        time_us: int,
        person: int,
        rollout: str,
        arm: str,
        items: Sequence[int],
        probabilities: Sequence[float] = (),
        answer: str = "",
    ) -> None:
        """A list was shown. `probabilities` of a click, one an item, or none where the answer has none. `answer` is
        the name that events may bring back.
        """
        self._close(time_us)
        side = -1
        if self._rollout:
            if rollout != self._rollout or time_us < self._began_us:
                # answered by an older plan: in neither arm
                return
            side = self._people.arm_of(person, int(arm == CANARY))
            if side < 0:
                return
        visit = self._visits.showing(time_us, person, self._step, side)
        self._visits.show(visit, time_us, items, probabilities, answer)

    def acted(self, time_us: int, person: int, event_type: str, items: Iterable[int], answer: str = "") -> None:
        """Somebody did something with products; with `answer` it counts for that answer or for nothing."""
        self._close(time_us)
        self._visits.act(time_us, person, event_type, items, answer)

    def evidence(self, now_us: int) -> Observed:
        """Of the step that runs, as of now."""
        self._close(now_us)
        stable, canary = (
            ArmSeen(people, predicted, clicked)
            for people, predicted, clicked in zip(self._people.counts(), self._predicted, self._clicked, strict=True)
        )
        return Observed(self._people.evidence(), stable, canary)

    def forget(self, people: Iterable[int]) -> None:
        """Erases people: their visits and all that is known of them."""
        gone = frozenset(people)
        self._visits.forget(gone)
        self._people.forget(gone)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """With `state()` all that `restore` needs."""
        return self._people.arrays()

    def state(self) -> dict[str, Any]:
        """JSON."""
        return {
            "metrics": [metric.name for metric in self._metrics],
            "offset": self.offset,
            "now_us": self._now_us,
            "began_us": self._began_us,
            "rollout": self._rollout,
            "step": self._step,
            "predicted": self._predicted,
            "clicked": self._clicked,
            "passed_over": self._people.passed_over,
            "visits": self._visits.state(),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Takes over what was kept. ValueError: it is of other metrics, so the log has to be folded again."""
        names = [metric.name for metric in self._metrics]
        if state["metrics"] != names:
            raise ValueError(f"observations of the metrics {state['metrics']} were kept, these are {names}")
        self._people.restore(arrays)
        self._people.passed_over = state["passed_over"]
        self._visits.restore(state["visits"])
        self.offset, self._now_us, self._began_us = state["offset"], state["now_us"], state["began_us"]
        self._rollout, self._step = state["rollout"], state["step"]
        self._predicted, self._clicked = list(state["predicted"]), list(state["clicked"])

    def _close(self, time_us: int) -> None:
        self._now_us = max(self._now_us, time_us)
        for visit in self._visits.over(self._now_us):
            self._count(visit)

    def _count(self, visit: Visit) -> None:
        # a visit of an earlier step, or outside of rollouts, is what was known before
        side = visit.arm if visit.step == self._step else -1
        self._people.add(visit.person, visit.open_us, [1.0, *visit.outcomes(self._metrics)], side)
        if side >= 0:
            self._predicted[side] += visit.predicted
            self._clicked[side] += visit.clicked(0)
