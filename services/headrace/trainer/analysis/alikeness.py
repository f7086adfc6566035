"""How much a release's orders are to be like those of the one that serves, and what vouches for one that isn't.

A sound increment is close to what it follows, an order at random to nothing. Yet what serves may be old or poor: after
an undo to an early release, or hours of holding, everything that has learned since is far from it and better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headrace.trainer.analysis.evidence import Difference, LiveShadow, LoggedEvidence, ShadowEvidence
from headrace.trainer.analysis.non_inferiority import BETTER, NOT_WORSE
from headrace.trainer.analysis.policy import ShadowPolicy


@dataclass(frozen=True, slots=True)
class Witness:
    """The comparison on the log that can vouch, and the verdicts by which it does."""

    metric: str
    verdicts: tuple[str, ...]

    def vouches(self, found: Sequence[Difference]) -> Difference | None:
        """The comparison that does."""
        return next((one for one in found if one.metric == self.metric and one.verdict in self.verdicts), None)


# lists that were shown say nothing of products that were not, and favour the order in which they stood
ORDER = Witness("order_loss", (BETTER,))
# these are asked about the whole catalogue
TOWERS = Witness("towers_kept", (BETTER, NOT_WORSE))


@dataclass(frozen=True, slots=True)
class Unlike:
    """A limit that a release is below."""

    reason: str
    witness: Witness


def unlike(evidence: ShadowEvidence, policy: ShadowPolicy) -> Iterator[Unlike]:
    """Every limit that there is enough evidence to judge by, and that the release is below."""
    logged, live = evidence.logged, evidence.live
    if logged is not None and logged.people >= people_wanted(evidence, policy):
        yield from _within_lists(logged, evidence.is_increment, policy)
    if live.pairs >= policy.least_pairs:
        yield from _among_candidates(live, evidence.is_increment, policy)


def people_wanted(evidence: ShadowEvidence, policy: ShadowPolicy) -> int:
    """Of how many people logged lists are to tell."""
    return policy.least_people if evidence.is_increment else policy.lineage_people


def _within_lists(logged: LoggedEvidence, is_increment: bool, policy: ShadowPolicy) -> Iterator[Unlike]:
    least = policy.increment_agreement if is_increment else policy.lineage_agreement
    yield from _below("rank_agreement within shown lists", logged.rank_agreement, least, ORDER)


def _among_candidates(live: LiveShadow, is_increment: bool, policy: ShadowPolicy) -> Iterator[Unlike]:
    overlap = policy.increment_overlap_at_20 if is_increment else policy.lineage_overlap_at_20
    correlation = policy.increment_rank_correlation if is_increment else policy.lineage_rank_correlation
    towers = policy.increment_tower_correlation if is_increment else policy.lineage_tower_correlation
    yield from _below("overlap_at_20", live.sum_overlap_at_20 / live.pairs, overlap, ORDER)
    yield from _below("rank_correlation", live.sum_rank_correlation / live.pairs, correlation, ORDER)
    # the ranker network may hide from the order that the towers are broken
    yield from _below("tower_correlation", live.sum_tower_correlation / live.pairs, towers, TOWERS)


def _below(name: str, mean: float, least: float, witness: Witness) -> Iterator[Unlike]:
    if mean < least:
        yield Unlike(f"{name} is {mean:.3f}, below {least}", witness)
