"""Everything that a demo run finds out, as plain facts that the panel and the report draw from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Lag:
    """Milliseconds that a stage was behind: recent quantiles."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class WeekQuality:
    """Recall@20 of one ISO week's baskets, asked before the week was streamed."""

    week: str
    baskets: int
    served: float
    popularity: float
    personal: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Events acknowledged in all, so many seconds after the start."""

    seconds: float
    events: int


@dataclass(frozen=True, slots=True)
class Shown:
    """One product of an answer, as a person sees it."""

    product_id: str
    title: str
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: what was shown, who made it, how long each stage took."""

    shown: Sequence[Shown]
    release: str
    stage_ms: dict[str, float]
    total_ms: float


@dataclass(frozen=True, slots=True)
class Click:
    """ "Click, and the list changed": the lists around a few events of one person."""

    person: str
    events: Sequence[str]
    before: Answer
    after: Answer
    event_to_answer_ms: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """A release gone bad on purpose: how its rollout went, and how many of the answers meanwhile it made."""

    release: str
    served: str
    rollout: str
    course: Sequence[str]
    seconds: float
    answers: int
    answers_by_it: int


@dataclass(frozen=True, slots=True)
class Undone:
    """The way back: from which release to which, and how long until the ranker answered by that."""

    release: str
    back_to: str
    took_ms: float


@dataclass
class DemoRecord:
    """What is known so far; the run writes it, the panel reads it while it grows."""

    dataset: str
    is_simulated: bool
    licence: str
    started: float = field(default_factory=time.monotonic)
    phase: str = "starting five services"
    expected_events: int = 0
    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    products: int = 0
    log_time: str = ""
    rates: list[Rate] = field(default_factory=list)
    lags: dict[str, Lag] = field(default_factory=dict)
    behind: dict[str, int] = field(default_factory=dict)
    weeks: list[WeekQuality] = field(default_factory=list)
    release: str = ""
    releases: int = 0
    # how many releases got through the gates to everybody, and how many were stopped by one
    promoted: int = 0
    rolled_back: int = 0
    delta_sequence: int = 0
    vectors: int = 0
    live: dict[str, Lag] = field(default_factory=dict)
    stopped: Stopped | None = None
    undone: Undone | None = None
    click: Click | None = None

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def events_per_s(self) -> float:
        """Over about the last three seconds."""
        recent = [rate for rate in self.rates if rate.seconds >= self.elapsed_s - 3]
        if len(recent) < 2 or recent[-1].seconds == recent[0].seconds:
            return 0.0
        return (recent[-1].events - recent[0].events) / (recent[-1].seconds - recent[0].seconds)

    def note_rate(self) -> None:
        self.rates.append(Rate(self.elapsed_s, self.accepted + self.duplicates + sum(self.rejected_by_reason.values())))

    def mean_quality(self) -> WeekQuality | None:
        """Over all weeks so far, weighted by baskets."""
        baskets = sum(week.baskets for week in self.weeks)
        if not baskets:
            return None

        def mean(values: Sequence[float]) -> float:
            return sum(value * week.baskets for value, week in zip(values, self.weeks, strict=True)) / baskets

        return WeekQuality(
            "all",
            baskets,
            mean([week.served for week in self.weeks]),
            mean([week.popularity for week in self.weeks]),
            mean([week.personal for week in self.weeks]),
        )
