"""What a canary and a shadow have to show, and what ends them: every threshold of the gates, with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared between arms: outcomes a unit of exposure, with the person as the cluster.

    `per`: "visit" (`visit_s` from the first list shown, which opens a visit) or "person". An event of one of
    `event_types` counts when it comes within `window_s` of a list of that visit that showed the product.
    `event_types` empty: visits are what is counted. `cap`: no unit counts more (decided before
    the data is seen, so that one robot does not decide a rollout). `share`: of the rollout's alpha.

    `tightest_at`: harm is shown soonest where the exposure of the smaller arm, times the relative variance of a unit,
    has come to about so much; far from it bounds are a little wider, never wrong.
    """

    name: str
    event_types: tuple[str, ...]
    share: float
    per: str = "visit"
    cap: float = 20.0
    window_s: float = 1_800.0
    tightest_at: float = 1_000.0


CLICKS = "clicks_per_visit"

METRICS = (
    Metric(CLICKS, ("detail-page-view",), share=0.7),
    Metric("carts_per_visit", ("add-to-cart",), share=0.1),
    Metric("purchases_per_visit", ("purchase-complete",), share=0.1),
    Metric("visits_per_person", (), share=0.1, per="person", cap=50.0),
)


@dataclass(frozen=True, slots=True)
class Guardrails:
    """Limits that need no statistics because they are far from what a sound release does, from `answers` on.

    Fallbacks: above 2 % the canary arm is no longer what it should be compared as, above 20 % it is down.
    """

    answers: int = 200
    fallbacks_inconclusive: float = 0.02
    fallbacks_abort: float = 0.20
    # more than stable has, as a share of answers
    errors: float = 0.01
    # of the canary arm's quantile to the stable arm's, and what the difference must exceed as well
    latency_quantiles: tuple[float, ...] = (0.5, 0.99)
    latency_factor: float = 2.0
    latency_slack_ms: float = 50.0
    # predicted to observed clicks, beside the same of the stable arm, either way; from so many clicks in either arm on
    calibration_factor: float = 2.0
    calibration_clicks: int = 200
    # chance of ever saying that arms are not shared out as they should be when they are
    sample_ratio_alpha: float = 0.001


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """Gate 2. `margins`: by step, the last for promotion: a step is passed when the lower bound of `primary` is above
    minus its margin; steps that are not named have the margin before the last one.
    """

    metrics: tuple[Metric, ...] = METRICS
    primary: str = CLICKS
    margins: tuple[float, ...] = (0.5, 0.2, 0.05)
    # chance of ever passing a release that is worse by the margin
    alpha_pass: float = 0.05
    # as Metric.tightest_at, of the bound that passes: small margins take long
    pass_tightest_at: float = 7_000.0
    # nothing is judged before: the bounds are asymptotic
    least_people: int = 100
    least_outcomes: float = 20.0
    least_hours: float = 1.0
    # a step that tells nothing ends as inconclusive
    most_hours: float = 24.0 * 21
    visit_s: float = 1_800.0
    guardrails: Guardrails = Guardrails()


@dataclass(frozen=True, slots=True)
class ShadowPolicy:
    """Gate 1. `increment_…`: for the next release of the lineage that serves, which is close to what it follows;
    another lineage may well order otherwise, but no sound one orders at random.
    """

    least_pairs: int = 100
    # of whom logged lists tell; another lineage has time, and orders that are none pass fewer by chance
    least_people: int = 100
    lineage_people: int = 300
    most_seconds: float = 3_600.0
    increment_overlap_at_20: float = 0.5
    increment_rank_correlation: float = 0.5
    increment_tower_correlation: float = 0.5
    lineage_overlap_at_20: float = 0.1
    lineage_rank_correlation: float = 0.1
    lineage_tower_correlation: float = 0.1
    # an increment whose order is less alike passes by live requests alone no more: a ranker with shuffled weights may
    # look like .3 to .6, and what followed on logged lists tells it from one that learned much at once
    increment_alike: float = 0.8
    # within lists that were shown, where what the baseline thought little of is missing
    increment_agreement: float = 0.3
    lineage_agreement: float = 0.1
    # relative to the baseline: a loss that is surely higher by more than this is harm
    loss_tolerance: float = 0.01
    # share of states whose next item the candidate no longer finds, beyond those that it finds anew
    kept_tolerance: float = 0.02
    calibration_factor: float = 2.0
    calibration_lists: int = 500
    latency_factor: float = 3.0
    # means of a busy machine, whose scheduler takes a score of half a millisecond away for many
    latency_slack_ms: float = 20.0
    # of requests; of few, at least so many
    failures: float = 0.01
    least_failures: int = 5


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """α is a budget per day, of two purses, so that hundreds of increments leave enough for a canary (error_budget.py).

    `canary_part`, `increment_part`: what one of them is given of what is left of its purse that day.
    """

    canary_alpha: float = 0.05
    canary_part: float = 0.5
    increment_alpha: float = 0.05
    increment_part: float = 1.0 / 144.0
