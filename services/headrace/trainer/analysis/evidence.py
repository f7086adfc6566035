"""All that a verdict is made from: sums and counts that, kept as JSON, give the same verdict again, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

# upper bounds of the columns of a latency histogram; the last column is open
LATENCY_BOUNDS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0)

# outcome, exposure and two covariates: the columns that `Moments` are over
WIDTH = 4


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the people of an arm. A person is a row (outcome, exposure, two covariates), summed over what they did.

    `products` are the sums of the products of every two columns, the upper triangle row by row.
    """

    people: int = 0
    sums: tuple[float, ...] = (0.0,) * WIDTH
    products: tuple[float, ...] = (0.0,) * (WIDTH * (WIDTH + 1) // 2)


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    """One metric in both arms; `name` is that of the policy's metric."""

    name: str
    stable: Moments
    canary: Moments


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Sums over an arm since the step began. `people`: those who were shown something, each once.

    All but people, predicted and clicked are sums of the rankers' ArmReports; `fallbacks` over all reasons.
    `predicted`: the sum of the probabilities of a click that the answers gave to what they showed; `clicked`: how
    many of just these were clicked. Both 0 where answers carry no probabilities.
    """

    people: int = 0
    answers: int = 0
    fallbacks: int = 0
    errors: int = 0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_BOUNDS_MS) + 1)
    predicted: float = 0.0
    clicked: float = 0.0


@dataclass(frozen=True, slots=True)
class CanaryEvidence:
    """What gate 2 knows at one look, all since the present step began.

    Steps are experiments of their own: people who move to the canary when the share grows would otherwise be in both
    arms. `alpha` is what the rollout was allotted when it began (error_budget.py).
    """

    rollout: str
    step: int
    steps_bp: tuple[int, ...]
    hours: float
    alpha: float
    metrics: tuple[MetricEvidence, ...]
    stable: ArmCounts
    canary: ArmCounts


@dataclass(frozen=True, slots=True)
class PairedMean:
    """Means over people of what candidate and baseline lose on the same lists, and of the difference."""

    candidate: float
    baseline: float
    difference: float
    standard_error: float
    people: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probabilities of a click over shown rows beside what came: means, and the expected calibration error."""

    predicted: float
    observed: float
    expected_error: float


@dataclass(frozen=True, slots=True)
class Kept:
    """Paired hits: states of which both, one or none of the two releases found what came next."""

    states: int
    baseline_hits: int
    candidate_hits: int
    lost: int
    gained: int


@dataclass(frozen=True, slots=True)
class Value:
    """An off-policy value with its interval."""

    value: float
    lower: float
    upper: float
    effective_sample_size: float


@dataclass(frozen=True, slots=True)
class LoggedEvidence:
    """What logged impressions tell of the candidate beside the baseline.

    Of `doubly_robust` and `snips` the intervals of both must part before anything is read into them.
    """

    lists: int
    people: int
    click_loss: PairedMean
    order_loss: PairedMean
    calibration: Calibration
    baseline_calibration: Calibration
    rank_agreement: float
    snips: Value
    baseline_snips: Value
    doubly_robust: Value
    baseline_doubly_robust: Value
    towers: Kept
    queries: Kept
    not_finite: int


@dataclass(frozen=True, slots=True)
class LiveShadow:
    """The sums of the rankers' ShadowReports: live requests that both releases scored."""

    pairs: int = 0
    sum_overlap_at_10: float = 0.0
    sum_overlap_at_20: float = 0.0
    sum_rank_correlation: float = 0.0
    sum_tower_correlation: float = 0.0
    sum_click_probability: float = 0.0
    sum_baseline_click_probability: float = 0.0
    not_finite: int = 0
    failures: int = 0
    sum_ms: float = 0.0
    sum_baseline_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ShadowEvidence:
    """What gate 1 knows at one look. `alpha` is what this release was allotted (error_budget.py)."""

    release: str
    is_increment: bool
    seconds: float
    alpha: float
    live: LiveShadow
    logged: LoggedEvidence | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One measured difference between candidate and stable: relative, with the bounds that hold at every look.

    `verdict`: better, not worse, worse, open, or fired for a guardrail. Bounds stay within −0.999 … 999.
    """

    metric: str
    stable: float
    canary: float
    difference: float
    lower: float
    upper: float
    stable_count: int
    canary_count: int
    verdict: str


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """`decision`: go on, advance (the next step), promote, roll back or inconclusive."""

    decision: str
    reason: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """`decision`: go on, pass, stop or inconclusive."""

    decision: str
    reason: str
    differences: tuple[Difference, ...]
    numbers: tuple[tuple[str, float], ...]
